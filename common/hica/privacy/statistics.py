"""Sums of which one unit changes only so much: what the Gaussian mechanism is put on.

A unit (a patient, or an image) has weight 1 in all, whatever number of images it has, and every
image is a row of norm 1 at most. Neighbouring data sets differ by one unit, added or removed; the
L2 sensitivity of a release is the largest change of all its numbers together.

    z̃ = z + N(0, (σ·Δ)²)        Dwork & Roth 2014, Theorem A.1; accounted for as in `accountant`
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hica.method.pseudo_labels import ClusterSums, Labels, Matrix, Vector
from hica.privacy.noise import NoiseSource, on_grid
from hica.steps.arrays import COUNT_SCALE

SENSITIVITY = math.sqrt(1.0 + COUNT_SCALE**2)
"""Δ of (sums, COUNT_SCALE·counts), where a unit moves either by 1 at most."""


def unit_weights(units: Sequence[str]) -> Vector:
    """Weight [n] of each image, so that those of a unit add up to 1."""
    images = Counter(units)
    return np.array([1.0 / images[unit] for unit in units])


def group_sums(rows: Matrix, groups: Labels, count: int, weights: Vector) -> ClusterSums:
    """Weighted sums [count, D] and counts [count] of rows [n, D] per group [n]; -1: in none.

    Rows longer than 1 are scaled to norm 1; `weights` [n] are those of `unit_weights`.
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    # A number that is not finite would pass every bound: it counts as zero.
    bounded = np.nan_to_num(rows / np.maximum(norms, 1.0), nan=0.0, posinf=0.0, neginf=0.0)
    inside = groups >= 0
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, groups[inside], bounded[inside] * weights[inside, None])
    counts = np.bincount(groups[inside], weights=weights[inside], minlength=count)
    return ClusterSums(sums, counts.astype(np.float64))


def noised(parts: ClusterSums, deviation: float, noise: NoiseSource) -> ClusterSums:
    """Sums and counts with independent normal noise on every number, on a grid.

    `deviation` is σ·Δ, the standard deviation on sums; that on counts is 1 / `COUNT_SCALE` of it.
    """
    finer = deviation / COUNT_SCALE
    return ClusterSums(
        on_grid(parts.sums + deviation * noise.normal(parts.sums.shape), deviation),
        on_grid(parts.counts + finer * noise.normal(parts.counts.shape), finer),
    )
