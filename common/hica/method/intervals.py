"""Intervals of 95 % confidence."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hica.errors import ConfigurationError


class Interval(NamedTuple):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def paired_interval(differences: Sequence[float]) -> Interval:
    """Mean difference of two methods over seeds with its 95 % t-interval.

    There is one difference for each seed: both methods saw the same episode and split.

    Raises:
        ConfigurationError: Fewer than two seeds.
    """
    from scipy import stats  # loads for seconds, and no federation needs it

    n = len(differences)
    if n < 2:
        raise ConfigurationError(
            f"seeds: a paired interval needs at least 2, got {n}; run the comparison on more seeds"
        )
    mean = float(np.mean(differences))
    reach = float(stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - reach, mean + reach)


def clipped(value: float) -> float:
    """Put a value into 0..1, which rounding may leave by 1e-16."""
    return float(min(1.0, max(0.0, value)))
