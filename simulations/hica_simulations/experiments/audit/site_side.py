"""What leaves the attacked site in each setting: the same functions that `hica_client` calls.

`hica.privacy.release` and `hica_client.app` do the same around data, a ledger and a message;
`test_site_side.py` holds that the numbers are theirs, to the bit.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.method.examples import Examples
from hica.method.local_training import train
from hica.method.pseudo_labels import ClusterSums
from hica.privacy.budget import statistics_multiplier
from hica.privacy.dp_sgd import train_privately
from hica.privacy.noise import NoiseSource
from hica.privacy.release import private_schedule, units_of
from hica.privacy.statistics import SENSITIVITY, group_sums, noised, unit_weights
from hica.steps.alignment import schedule_of
from hica_simulations.experiments.audit.settings import Setting
from hica_simulations.experiments.audit.world import Start


def class_sums(
    setting: Setting,
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    units: Sequence[str],
    noise: NoiseSource,
) -> ClusterSums:
    """One site's class sums [C, D] and counts [C] as they leave it.

    They are made of the images' unit embeddings `rows` [n, D], `labels` [n] and `units` [n].
    """
    weights = unit_weights(units) if setting.is_private else np.ones(len(rows))
    parts = group_sums(rows, labels, len(setting.statistics.classes), weights)
    if not setting.is_private:
        return parts
    multiplier = statistics_multiplier(setting.statistics) * setting.noise_scale
    return noised(parts, multiplier * SENSITIVITY, noise)


def round_change(
    setting: Setting,
    start: Start,
    examples: Examples,
    units: int,
    noise: NoiseSource,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """What one round of stage 2 changes of the weights, which the public start tells from them.

    The start is put back before the round, not after it. A private schedule is set for `units`: the
    number is public. Noise is that of private training, `generator` that of order and views in
    training without privacy.
    """
    start.reset()
    study, plain = setting.training, schedule_of(setting.training)
    if setting.is_private:
        rounds = setting.steps(units)
        multiplier = setting.multiplier(units) * setting.noise_scale
        views = examples.hidden.shape[1]
        schedule = private_schedule(study, plain, rounds, multiplier, start.model, views)
        whose = units_of(study, examples.groups)
        train_privately(start.model, examples, start.loss, schedule, whose, noise, start.anchor)
    else:
        train(start.model, examples, start.loss, plain, generator, start.anchor)
    now = start.model.shared()
    return {name: now[name].detach() - sent for name, sent in start.weights.items()}


def mean_change(changes: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over sites of what a round changes of the weights."""
    total = {name: torch.zeros_like(value) for name, value in changes[0].items()}
    for change in changes:
        for name, value in change.items():
            total[name] += value / len(changes)
    return total
