"""Conformal prediction: sets of classes that hold the right one as often as promised.

Nothing is assumed of the model, only that a new patient is drawn as the held-out ones were. An
image's score for a class is 1 - p of that class (Sadinle et al., 2019). A patient's images are
alike, so each patient counts once, whatever the number of images: the score of a new patient's
image lies within the limit with at least the promised chance (Lee, Barber and Willett, 2023,
"Distribution-free inference with hierarchical data", theorem 1).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def patient_weights(groups: Sequence[str]) -> NDArray[np.float64]:
    """[n], weights of images such that those of each patient sum to 1."""
    _, patient, images = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.asarray(1 / images[patient], dtype=np.float64)


def score_limit(scores: Floats, weights: Floats, coverage: float) -> float:
    """The least score that `coverage` of the patients, and one more, do not exceed.

    The least q of the scores [n] with Σ_{s_i <= q} w_i >= coverage · (Σ w_i + 1); infinite where
    there are too few patients to promise that much.
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order])
    needed = coverage * (weights.sum() + 1)
    place = int(np.searchsorted(reached, needed - 1e-9))
    return float(scores[order][place]) if place < len(order) else math.inf


def patients_needed(coverage: float) -> int:
    """The least number of patients that can promise a coverage below 1."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def sets_within(probabilities: Floats, limit: float) -> NDArray[np.bool_]:
    """[n, C], which classes have a score of at most `limit`: the prediction sets."""
    return np.asarray(1 - probabilities <= limit)


def share_at_least(values: Floats, weights: Floats, new: Floats) -> NDArray[np.float64]:
    """Conformal p-values [m]: the share of patients, the new one among them, with such a value.

    (Σ_{v_i >= new} w_i + 1) / (Σ w_i + 1), for values [n] of weights [n].
    """
    at_least = (values[None, :] >= new[:, None]) @ weights
    return np.asarray((at_least + 1) / (weights.sum() + 1))
