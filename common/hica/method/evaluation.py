"""Evaluation at a site: predictions on its held-out images become `SiteMetrics`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hica.errors import DataError
from hica.method.bootstrap import Bootstrap
from hica.method.disclosure import merged_bins, patients_of, small_classes
from hica.method.metrics import Floats, Integers
from hica.method.reliability import (
    bin_of_image,
    expected_calibration_error,
    reliability_bins,
)
from hica.method.site_metrics import Estimate, SiteMetrics


def site_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str],
    class_count: int,
    *,
    resamples: int = 1000,
    seed: int,
    min_count: int,
) -> SiteMetrics:
    """Measure predictions [n, C] on a site's held-out images of true classes [n].

    `groups` [n] names the patient (or duplicate group) of each image. Intervals are percentiles of
    a bootstrap over patients: images of one patient are alike, and drawing them singly would
    promise too much. They have no width where nothing varies (every image right), and are 0..1 with
    standard error 0.5 where there is only one patient. Images of a class with fewer than
    `min_count` patients are left out of all of it (`hica.method.disclosure`).

    Raises:
        DataError: Shapes or labels that do not fit, probabilities that are none, or no class with
            `min_count` patients: of fewer even an accuracy would tell too much.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    names = np.asarray(groups, dtype=str)
    _check_shapes(probabilities, labels, groups, class_count)
    patients = patients_of(labels.tolist(), names.tolist(), range(class_count))
    small = small_classes(patients, min_count)
    left = ~np.isin(labels, sorted(small))
    if not left.any():
        raise DataError(
            f"held-out images: no class has min_count = {min_count} patients; "
            "metrics of so few would describe single patients: hold out more patients, "
            "or let this site take part in training only"
        )
    probabilities, labels, names = probabilities[left], labels[left], names[left]
    _check_probabilities(probabilities)
    distinct, group_of_image = np.unique(names, return_inverse=True)
    counts = np.bincount(labels, minlength=class_count).tolist()
    weights = Bootstrap(group_of_image, len(distinct), resamples, seed)
    auroc = weights.estimate("auroc", probabilities, labels)
    confusion = np.zeros((class_count, class_count), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    bins = bin_of_image(probabilities)
    return SiteMetrics(
        n=len(labels),
        counts=tuple(None if c in small else counts[c] for c in range(class_count)),
        accuracy=_defined(weights.estimate("accuracy", probabilities, labels)),
        balanced_accuracy=_defined(weights.estimate("balanced_accuracy", probabilities, labels)),
        auroc=auroc,
        ece=min(1.0, expected_calibration_error(probabilities, labels)),
        confusion=None if small else tuple(tuple(row) for row in confusion.tolist()),
        calibration=merged_bins(
            reliability_bins(probabilities, labels),
            [names[bins == each].tolist() for each in np.unique(bins)],
            min_count,
        ),
    )


def _defined(estimate: Estimate | None) -> Estimate:
    assert estimate is not None  # only AUROC can be undefined
    return estimate


def _check_shapes(
    probabilities: Floats, labels: Integers, groups: Sequence[str], class_count: int
) -> None:
    n = len(labels)
    if labels.ndim != 1 or n == 0 or probabilities.shape != (n, class_count) or len(groups) != n:
        raise DataError(
            f"held-out images: probabilities {probabilities.shape}, labels {labels.shape} and "
            f"{len(groups)} groups do not describe the same images of {class_count} classes; "
            "give one row, one label and one patient for each held-out image"
        )
    if labels.min() < 0 or labels.max() >= class_count:
        raise DataError(
            f"held-out images: labels lie in {labels.min()}..{labels.max()}, expected "
            f"0..{class_count - 1}; leave unlabelled images out of the evaluation"
        )


def _check_probabilities(probabilities: Floats) -> None:
    """Of the images that are evaluated: a refusal must not tell of another one."""
    if not np.isfinite(probabilities).all():
        raise DataError(
            "held-out images: probabilities are not finite, so the model has diverged; "
            "lower alignment.learning_rate and run again"
        )
    if probabilities.min() < 0 or probabilities.max() > 1 + 1e-6:
        raise DataError(
            f"held-out images: probabilities lie in {probabilities.min():.3g}.."
            f"{probabilities.max():.3g}, expected 0..1; apply the softmax first"
        )
