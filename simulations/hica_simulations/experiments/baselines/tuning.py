"""TunedEpisode: an episode for baselines that train a part of the image tower.

An `Episode` holds features of the frozen tower. Here it holds what the tower's trained part starts
from, and features are made of it under whatever weights a baseline has come to. What is fixed for
all baselines (centring, which views are averaged, temperature) stays where it is: in `Episode`.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hica.device import autocast
from hica.towers.adaptation import AdaptedTower
from hica_simulations.experiments.baselines.episode import Doubles, Episode, Floats

ENCODED_AT_ONCE = 8
"""Images; the maps of many more fit no core's cache, and each then takes twice as long."""


@dataclass(frozen=True, eq=False)
class TunedEpisode:
    """Shots to train a tower on and images to predict.

    Attributes:
        start: The tower before training; nobody changes it.
        inputs: The episode, with outputs of `start.frozen` in the place of features: `train` is
            [n, V, ...] and `test` [m, W, ...], hidden states, or pixels where all blocks are run.
    """

    start: AdaptedTower
    inputs: Episode

    def fresh_tower(self) -> AdaptedTower:
        """A tower of the start's weights to train: a copy, for training changes it in place."""
        return copy.deepcopy(self.start)

    def encoded(self, tower: AdaptedTower) -> Episode:
        """The episode as the tower sees it: features of images and mirror images, [n, 2, D]."""
        train, test = encode(tower, self.inputs.train), encode(tower, self.inputs.test)
        return replace(self.inputs, train=train, test=test)


FitPredictTuned = Callable[[TunedEpisode], Doubles]
"""Trains on the shots; returns probabilities [m, C] of the test images."""


def features(tower: AdaptedTower, hidden: Tensor) -> Tensor:
    """Whole images [B, D] of outputs of the tower's frozen part [B, ...], on any device.

    The result is differentiable and on the tower's device.
    """
    device = next(tower.parameters()).device
    absent = torch.zeros(len(hidden), 1, tower.tower.grid, tower.tower.grid, device=device)
    with autocast(device):
        pooled, _ = tower(hidden.to(device), absent)
    found: Tensor = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
    return found


def batches(
    shots: Tensor, size: int, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass after pass over shots [n, V, ...] in random order, each in one random view a pass.

    There are `steps` batches of `size` shots, of fewer at the end of a pass. Yields the rows [B],
    and the shots in those rows [B, ...].
    """
    left = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        left = left if len(left) else torch.randperm(len(shots), generator=generator)
        rows, left = left[:size], left[size:]
        yield rows, shots[rows, torch.randint(shots.shape[1], (len(rows),), generator=generator)]


@torch.no_grad()
def encode(tower: AdaptedTower, inputs: Floats) -> Floats:
    """Features [n, 2, D] of the first two views of inputs [n, V, ...]; [n, 1, D] of one view."""
    tower.eval()
    views = torch.from_numpy(inputs[:, :2])
    rows = torch.split(views.flatten(0, 1), ENCODED_AT_ONCE)
    found = torch.cat([features(tower, part).cpu() for part in rows])
    return np.asarray(found.view(*views.shape[:2], -1).numpy())
