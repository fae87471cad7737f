"""Local normalisation: every site standardises its features itself, the probe is shared.

After FedBN (Li et al., ICLR 2021), which averages all weights but those of BatchNorm: machines
differ in what a mean image looks like, less in what tells the classes apart. A frozen tower leaves
the statistics of its features to be kept local. A site without shots takes those of all the shots,
as the authors give a new site the averaged ones.
"""

import numpy as np
from scipy.special import softmax

from hica_simulations.experiments.baselines.episode import Doubles, Episode
from hica_simulations.experiments.baselines.fed_probe import fit, scaled


def fit_predict(episode: Episode) -> Doubles:
    """FedAvg of a linear probe on locally standardised features: [m, C]."""
    parts = episode.by_site
    shots = [_standardised(episode.shots[part], episode.shots[part]) for part in parts]
    weights = fit(shots, [episode.targets[part] for part in parts], pull=0.0)
    found = np.empty((len(episode.queries), episode.class_count))
    for site in np.unique(episode.test_sites):
        own = episode.sites == site
        known = episode.shots[own] if own.any() else episode.shots
        there = episode.test_sites == site
        rows = _standardised(episode.queries[there], known)
        found[there] = softmax(rows @ weights.T, axis=1)
    return found


def _standardised(rows: Doubles, known: Doubles) -> Doubles:
    """Rows by the mean and variance of the known shots: [n, D + 1]."""
    return scaled(rows, known.mean(axis=0), known.var(axis=0))
