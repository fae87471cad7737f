"""What leaves the attacked site in each setting: the same functions that `hica_client` calls.

`hica_client.releases` and `hica_client.app` do the same around a session, a ledger and a message;
`test_site_side.py` holds that the numbers are theirs, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.examples.examples import Examples
from hica.method.local_training import Schedule, train
from hica.method.pseudo_labels import ClusterSums
from hica.privacy.budget import statistics_multiplier, training_multiplier
from hica.privacy.dp_sgd import PrivateSchedule, train_privately
from hica.privacy.noise import NoiseSource
from hica.privacy.statistics import SENSITIVITY, group_sums, noised, unit_weights
from hica_client.releases import rows_at_a_time
from hica_simulations.experiments.audit.settings import Setting
from hica_simulations.experiments.audit.world import Start, units_of


def class_sums(
    setting: Setting,
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    units: Sequence[str],
    noise: NoiseSource,
) -> ClusterSums:
    """One site's class sums [C, D] and counts [C] as they leave it.

    Args:
        setting: Whether and how much noise is added.
        rows: [n, D] unit embeddings of the images.
        labels: [n].
        units: [n] unit to which each image belongs.
        noise: Where noise comes from.
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

    Args:
        setting: How the site trains.
        start: Where from; put back before the round, not after it.
        examples: The images that the site learns from.
        units: For how many its private schedule is set: the number is public.
        noise: Where noise comes from.
        generator: Order and views without privacy.
    """
    start.reset()
    stage = setting.training.alignment
    if setting.is_private:
        size = sum(value.numel() for value in start.weights.values())
        schedule = private_schedule(setting, units, examples.hidden.shape[1], size)
        whose = units_of(examples, setting)
        train_privately(start.model, examples, start.loss, schedule, whose, noise, start.anchor)
    else:
        plain = Schedule(
            stage.local_epochs,
            stage.batch_size,
            stage.learning_rate,
            stage.bank_learning_rate,
            stage.weight_decay,
            stage.text_pull,
        )
        train(start.model, examples, start.loss, plain, generator, start.anchor)
    now = start.model.shared()
    return {name: now[name].detach() - sent for name, sent in start.weights.items()}


def private_schedule(setting: Setting, units: int, views: int, size: int) -> PrivateSchedule:
    """The schedule of `hica_client.releases.train`, but for a number of units that is public.

    Args:
        setting: Gives the study and the noise.
        units: Number of units for which the schedule is made.
        views: Views of each image.
        size: How many numbers are trained.
    """
    study, steps = setting.training, setting.steps(units)
    stage = study.alignment
    return PrivateSchedule(
        steps=steps.steps,
        sampling_rate=steps.sampling_rate,
        noise_multiplier=training_multiplier(study, 0, units) * setting.noise_scale,
        max_norm=study.privacy.max_gradient_norm,
        views=views,
        micro_batch=rows_at_a_time(size),
        learning_rate=stage.learning_rate,
        bank_learning_rate=stage.bank_learning_rate,
        weight_decay=stage.weight_decay,
        text_pull=stage.text_pull,
        expected_units=steps.sampling_rate * units,
    )
