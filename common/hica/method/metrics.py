"""Metrics of predictions: accuracy, balanced accuracy and AUROC.

Each takes weights [R, n] and gives [R] values, so that the bootstrap (one row of weights per
resample) and the plain value (one row of ones) are one path.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Metric = Callable[[Floats, Integers, Floats], Floats]


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose most probable class is the true one.

    Of probabilities [n, C] and true classes [n].
    """
    return _plain("accuracy", probabilities, labels)


def balanced_accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the classes present of the share of their images that is recognised.

    Of probabilities [n, C] and true classes [n].
    """
    return _plain("balanced_accuracy", probabilities, labels)


def macro_auroc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve, one class against the rest, mean over the classes present.

    Of probabilities [n, C] and true classes [n]. With two classes the usual area, of the second
    class's probability. NaN where only one class is present.
    """
    return _plain("auroc", probabilities, labels)


def weighted_metric(
    name: str, probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike
) -> Floats:
    """A metric [R] of weighted images, as a bootstrap needs it; NaN where it is not defined.

    `name` is `accuracy`, `balanced_accuracy` or `auroc`; probabilities are [n, C], true classes [n]
    and weights [R, n], of which a row of ones gives the plain value.
    """
    metric = _METRICS[name]
    return metric(np.asarray(probabilities), np.asarray(labels), np.asarray(weights, np.float64))


def _plain(name: str, probabilities: ArrayLike, labels: ArrayLike) -> float:
    return float(weighted_metric(name, probabilities, labels, np.ones((1, np.size(labels))))[0])


def _accuracy(probabilities: Floats, labels: Integers, weights: Floats) -> Floats:
    correct = probabilities.argmax(axis=1) == labels  # (n)
    return _mean_where((weights @ correct)[:, None], weights.sum(axis=1)[:, None])


def _balanced_accuracy(probabilities: Floats, labels: Integers, weights: Floats) -> Floats:
    correct = probabilities.argmax(axis=1) == labels
    members = labels[:, None] == np.arange(probabilities.shape[1])  # (n, C)
    hits = weights @ (members & correct[:, None])  # (R, C)
    return _mean_where(hits, weights @ members)


def _macro_auroc(probabilities: Floats, labels: Integers, weights: Floats) -> Floats:
    class_count = probabilities.shape[1]
    columns = [1] if class_count == 2 else range(class_count)
    wins, pairs = np.moveaxis(
        np.array([_ranking(probabilities[:, c], labels == c, weights) for c in columns]), 0, -1
    )  # (R, columns) each
    return _mean_where(wins, pairs)


def _ranking(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Pairs (positive, negative) that the scores order rightly, ties half; and all pairs: [R]."""
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)  # the first of each run of ties
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)  # (R, ties)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return wins, positives.sum(axis=1) * negatives.sum(axis=1)


def _mean_where(numerator: Floats, denominator: Floats) -> Floats:
    """Mean over the last axis of numerator/denominator where the latter is positive; else NaN."""
    present = denominator > 0
    ratios = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=present)
    count = present.sum(axis=-1)
    result = np.full(count.shape, np.nan)
    np.divide(ratios.sum(axis=-1), count, out=result, where=count > 0)
    return result


_METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "auroc": _macro_auroc,
}
