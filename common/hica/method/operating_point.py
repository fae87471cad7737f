"""Operating point: from which probability of a class on an image is called by its name.

A clinic says how many of the ill it must find, or how many of the healthy it must leave alone; the
threshold that does so on held-out patients follows. Each patient counts once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import DataError
from hica.method.conformal import patient_weights
from hica.method.intervals import Interval


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it does on the patients that it was chosen on.

    Attributes:
        threshold: Probability from which on an image is called.
        sensitivity: Share of the patients with the class who are called; exact 95 % interval.
        specificity: Share of the others who are not.
    """

    threshold: float
    sensitivity: Interval
    specificity: Interval


def operating_point(
    probabilities: NDArray[np.floating[Any]],
    positive: NDArray[np.bool_],
    groups: Sequence[str],
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
) -> OperatingPoint:
    """The threshold that reaches a sensitivity, or a specificity, and gives up the least for it.

    Of the probabilities [n] of a class, whether each image is of it [n], and its patient [n]. Just
    one of the two is asked for, in 0..1.

    Raises:
        DataError: There is no image of the class, or none of the others.
    """
    if positive.all() or not positive.any():
        raise DataError(
            "held-out images: an operating point needs patients with the class and without it; "
            "hold out more, or predict without one"
        )
    weights = np.zeros(len(positive))
    for side in (positive, ~positive):  # a patient may have images of both
        rows = np.flatnonzero(side)
        weights[rows] = patient_weights([groups[int(row)] for row in rows])
    if sensitivity is not None:
        threshold = _reaching(probabilities[positive], weights[positive], sensitivity)
    elif specificity is not None:
        # The least value above as many of the others as must not be called.
        below = -_reaching(-probabilities[~positive], weights[~positive], specificity)
        threshold = float(np.nextafter(below, 2.0)) if specificity > 0 else 0.0
    else:
        raise ValueError("neither sensitivity nor specificity is asked for")
    called = probabilities >= threshold
    return OperatingPoint(
        threshold,
        _share(called[positive], weights[positive]),
        _share(~called[~positive], weights[~positive]),
    )


def _reaching(
    values: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]], share: float
) -> float:
    """The largest t such that at least this share of the weight has a value of at least t."""
    order = np.argsort(-values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(reached, share - 1e-9))
    return float(values[order][min(place, len(order) - 1)])


def _share(right: NDArray[np.bool_], weights: NDArray[np.floating[Any]]) -> Interval:
    """A share of patients with its exact 95 % interval (Clopper and Pearson, 1934)."""
    from scipy import stats

    patients = round(float(weights.sum()))
    value = float(weights[right].sum()) / patients
    whole = math.floor(value * patients + 1e-9)  # who is called in part counts as not called
    low = float(stats.beta.ppf(0.025, whole, patients - whole + 1)) if whole else 0.0
    high = float(stats.beta.ppf(0.975, whole + 1, patients - whole)) if whole < patients else 1.0
    return Interval(value, low, high)
