"""Reliability: how often predictions are right, by how sure they are.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hica.method.intervals import clipped
from hica.method.site_metrics import CalibrationBin

CALIBRATION_BINS = 15


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy, Σ_b n_b/n · |accuracy_b - confidence_b|.

    Equation 3 of Guo et al.: bins of equal width in the probability of the predicted class, of
    probabilities [n, C] and true classes [n].
    """
    table = reliability_bins(probabilities, labels, bins)
    total = sum(each.count for each in table)
    return sum(each.count / total * abs(each.accuracy - each.confidence) for each in table)


def reliability_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Non-empty bins (low, high] of equal width in the predicted class's probability.

    Of probabilities [n, C] and true classes [n]; `bins` counts the empty ones too.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = bin_of_image(probabilities, bins)
    return tuple(
        CalibrationBin(
            int(inside.sum()), clipped(confidence[inside].mean()), float(correct[inside].mean())
        )
        for inside in (index == b for b in range(bins))
        if inside.any()
    )


def bin_of_image(probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """In which of the bins, 0 to `bins` - 1, each prediction [n, C] lies."""
    confidence = np.asarray(probabilities).max(axis=1)
    index: NDArray[np.int64] = np.ceil(confidence * bins).astype(np.int64) - 1
    return index.clip(0, bins - 1)
