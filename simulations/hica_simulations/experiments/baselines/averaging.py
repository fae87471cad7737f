"""FedAvg: sites train in turn from the same weights, which become the mean of theirs.

McMahan et al., AISTATS 2017, algorithm 1, with every site in every round.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from hica_simulations.experiments.baselines.episode import Doubles

Weights = TypeVar("Weights", Doubles, Tensor)


def federated_average(
    start: Weights,
    train: Callable[[Weights, int], Weights],
    counts: Sequence[int],
    rounds: int,
) -> Weights:
    """The weights after some rounds.

    `train` gives a site's weights from those of the round and its place in `counts`, the shots of
    each site, by which its weights count; it changes neither.
    """
    shares = np.asarray(counts) / np.sum(counts)
    weights = start
    for _ in range(rounds):
        weights = sum(share * train(weights, site) for site, share in enumerate(shares.tolist()))
    return weights
