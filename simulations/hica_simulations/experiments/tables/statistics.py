"""What the seeds and the patients of a table support: means, paired differences, intervals.

Two levels of chance. *Seeds* draw episodes (and splits, where `simulation.split_seed` follows the
seed): a t-interval over the seeds' differences says what other draws would give. *Patients* are
those who happen to be in the data: a bootstrap that draws them, each with all their images and in
all seeds at once, says what other patients would give. Either interval alone is too sure.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hica.method.intervals import Interval, paired_interval
from hica.method.metrics import weighted_metric
from hica_simulations.predictions import Predictions

RESAMPLES = 1000

Pair = tuple[Predictions, Predictions]


def seeds_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
    """Mean paired difference and its 95 % t-interval over seeds; None below two seeds."""
    if len(ours) != len(theirs) or len(ours) < 2:
        return None
    return paired_interval([one - other for one, other in zip(ours, theirs, strict=True)])


def patients_interval(
    pairs: Sequence[Pair], metric: str, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean paired difference over seeds, with a 95 % percentile interval over patients.

    Pairs are predictions of both methods for every seed, on the same test images in the same order;
    the metric is `accuracy`, `balanced_accuracy` or `auroc`. `seed` is that of the bootstrap draws.

    Raises:
        ValueError: The two of a pair are not of the same images.
    """
    for ours, theirs in pairs:
        if ours.groups != theirs.groups or not np.array_equal(ours.labels, theirs.labels):
            raise ValueError("paired predictions must be of the same images in the same order")
    names = sorted({group for ours, _ in pairs for group in ours.groups})
    place = {name: number for number, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    drawn = np.mean([_differences(pair, metric, draws, place) for pair in pairs], axis=0)
    whole = np.ones((1, len(names)))
    value = float(np.mean([_differences(pair, metric, whole, place)[0] for pair in pairs]))
    drawn = drawn[np.isfinite(drawn)]  # a draw of one class only has no AUROC
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (-math.inf, math.inf)
    return Interval(value, float(low), float(high))


def _differences(
    pair: Pair, metric: str, draws: NDArray[np.number], place: dict[str, int]
) -> NDArray[np.float64]:
    """Ours less theirs under every draw [R] of patients [R, G]."""
    ours, theirs = pair
    weights = draws[:, [place[group] for group in ours.groups]].astype(np.float64)
    return weighted_metric(metric, ours.probabilities, ours.labels, weights) - weighted_metric(
        metric, theirs.probabilities, theirs.labels, weights
    )
