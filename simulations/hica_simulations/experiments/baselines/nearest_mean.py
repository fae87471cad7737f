"""Nearest class mean: each image goes to the class whose shots' mean lies nearest.

Prototypes (Snell et al., 2017, eq. 1 and 2) on centred unit features (CL2N, Wang et al., 2019).
Between unit rows the squared distance is 2 - 2·cosine, so that the cosine ranks as it does.
"""

import numpy as np

from hica_simulations.experiments.baselines.episode import Doubles, Episode, probabilities


def fit_predict(episode: Episode) -> Doubles:
    """Softmax over the cosines to the class means, [m, C]; 0 for a class without shots."""
    present = np.flatnonzero(episode.targets.sum(axis=0))
    means = episode.targets[:, present].T @ episode.unit_shots  # [C, D]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    found = np.zeros((len(episode.queries), episode.class_count))
    found[:, present] = probabilities(episode.unit_queries @ means.T)
    return found
