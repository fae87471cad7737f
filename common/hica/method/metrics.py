"""Accuracy, AUROC and calibration with patient-bootstrap intervals: what a site reports.

Predictions never leave a site. A site turns them into `SiteMetrics`, in which small counts are
hidden; the coordinator joins those with `combine`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hica.errors import ConfigurationError, DataError, MessageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Metric = Callable[[Floats, Integers, Floats], Floats]
Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]

CALIBRATION_BINS = 15
_STRICT = ConfigDict(extra="forbid")  # read by pydantic from __pydantic_config__ below
_CELLS_AT_ONCE = 4_000_000  # bootstrap weights held in memory: 32 MB


class Interval(NamedTuple):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A metric of one site in 0..1: its value, 95 % interval and standard error."""

    __pydantic_config__ = _STRICT

    value: Unit
    low: Unit
    high: Unit
    standard_error: Unit


@dataclass(frozen=True)
class CalibrationBin:
    """Images of similar confidence: how many, how sure on average, how often right."""

    __pydantic_config__ = _STRICT

    count: Count
    confidence: Unit
    accuracy: Unit


@dataclass(frozen=True)
class SiteMetrics:
    """What a site tells about its held-out images; counts that point at few patients are hidden."""

    __pydantic_config__ = _STRICT

    n: Annotated[int, Field(ge=1, strict=True)]
    """Held-out images."""
    counts: tuple[Count | None, ...]
    """Images of each class [C]; None where hidden."""
    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate | None
    """None where only one class is present."""
    ece: Unit
    confusion: tuple[tuple[Count, ...], ...] | None
    """Images by true class (row) and predicted one (column) [C, C]; None where a row is hidden."""
    calibration: tuple[CalibrationBin, ...]
    """Bins by rising confidence, each large enough to be shown."""

    def to_dict(self) -> dict[str, Any]:
        """The metrics as a table of plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: object, class_count: int, site: str) -> SiteMetrics:
        """Check and read what `to_dict` gave at a site.

        Args:
            table: The parsed JSON.
            class_count: C of the study.
            site: Name of the sender, for the message.

        Raises:
            MessageError: A key missing or unknown, a number out of range or NaN, shapes or totals
                that contradict each other.
        """
        try:
            metrics = _SITE_METRICS.validate_python(table)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or "table"
            raise _refusal(site, field, problem["msg"]) from None
        _check_consistency(metrics, class_count, site)
        return metrics


@dataclass(frozen=True)
class Overall:
    """Metrics of a federation: stratified over its sites."""

    n: int
    accuracy: Interval
    balanced_accuracy: Interval
    auroc: Interval | None
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """The metrics as a table of plain numbers, each interval as value, low, high."""
        intervals = {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "auroc": self.auroc,
        }
        tables = {name: each and each._asdict() for name, each in intervals.items()}
        return {"n": self.n, **tables, "ece": self.ece}


# Metrics of one set of predictions. Each takes weights [R, n] and gives [R] values, so that the
# bootstrap (one row of weights per resample) and the plain value (one row of ones) are one path.


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose most probable class is the true one.

    Args:
        probabilities: [n, C].
        labels: True classes [n].
    """
    return _plain(_accuracy, probabilities, labels)


def balanced_accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the classes present of the share of their images that is recognised.

    Args:
        probabilities: [n, C].
        labels: True classes [n].
    """
    return _plain(_balanced_accuracy, probabilities, labels)


def macro_auroc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve, one class against the rest, mean over the classes present.

    With two classes the usual area, of the second class's probability. NaN where only one class
    is present.

    Args:
        probabilities: [n, C].
        labels: True classes [n].
    """
    return _plain(_macro_auroc, probabilities, labels)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy, Σ_b n_b/n · |accuracy_b - confidence_b|.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3: bins of equal
    width in the probability of the predicted class.

    Args:
        probabilities: [n, C].
        labels: True classes [n].
        bins: Number of bins.
    """
    table = _calibration(np.asarray(probabilities), np.asarray(labels), bins)
    total = sum(each.count for each in table)
    return sum(each.count / total * abs(each.accuracy - each.confidence) for each in table)


def weighted_metric(
    name: str, probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike
) -> Floats:
    """A metric of weighted images, as a bootstrap needs it; NaN where it is not defined.

    Args:
        name: `accuracy`, `balanced_accuracy` or `auroc`.
        probabilities: [n, C].
        labels: True classes [n].
        weights: [R, n]; a row of ones gives the plain value.

    Returns:
        [R].
    """
    metric = {
        "accuracy": _accuracy,
        "balanced_accuracy": _balanced_accuracy,
        "auroc": _macro_auroc,
    }[name]
    return metric(np.asarray(probabilities), np.asarray(labels), np.asarray(weights, np.float64))


def _plain(metric: Metric, probabilities: ArrayLike, labels: ArrayLike) -> float:
    labels = np.asarray(labels)
    return float(metric(np.asarray(probabilities), labels, np.ones((1, len(labels))))[0])


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
    """Measure predictions on a site's held-out images.

    Intervals are percentiles of a bootstrap over patients: images of one patient are alike, and
    drawing them singly would promise too much. They have no width where nothing varies (every
    image right), and are 0..1 with standard error 0.5 where there is only one patient.

    Args:
        probabilities: [n, C].
        labels: True classes [n].
        groups: Patient (or duplicate group) of each image [n].
        class_count: C.
        resamples: Bootstrap draws.
        seed: Of those draws.
        min_count: A count that rests on fewer patients is hidden.

    Raises:
        DataError: Shapes or labels that do not fit, probabilities that are none, or fewer than
            `min_count` patients, of whom even an accuracy would tell too much.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    _check_predictions(probabilities, labels, groups, class_count)
    names, group_of_image = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < min_count:
        raise DataError(
            f"held-out images: {len(names)} patient(s), fewer than min_count = {min_count}; "
            "metrics of so few would describe single patients: hold out more patients, "
            "or let this site take part in training only"
        )
    patients = [len(set(group_of_image[labels == c])) for c in range(class_count)]
    hidden = _hidden_classes(patients, min_count)
    counts = np.bincount(labels, minlength=class_count).tolist()
    weights = _Bootstrap(group_of_image, len(names), resamples, seed)
    auroc = weights.estimate(_macro_auroc, probabilities, labels)
    confusion = np.zeros((class_count, class_count), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    return SiteMetrics(
        n=len(labels),
        counts=tuple(None if c in hidden else counts[c] for c in range(class_count)),
        accuracy=_defined(weights.estimate(_accuracy, probabilities, labels)),
        balanced_accuracy=_defined(weights.estimate(_balanced_accuracy, probabilities, labels)),
        auroc=auroc,
        ece=min(1.0, expected_calibration_error(probabilities, labels)),
        confusion=None if hidden else tuple(tuple(row) for row in confusion.tolist()),
        calibration=_merged(_calibration(probabilities, labels, CALIBRATION_BINS), min_count),
    )


@dataclass(frozen=True)
class _Bootstrap:
    """Draws of patients with replacement, as weights on their images."""

    group_of_image: Integers
    group_count: int
    resamples: int
    seed: int

    def estimate(self, metric: Metric, probabilities: Floats, labels: Integers) -> Estimate | None:
        """Value, percentile interval and standard error of a metric; None where undefined."""
        value = float(metric(probabilities, labels, np.ones((1, len(labels))))[0])
        if math.isnan(value):
            return None
        if self.group_count == 1:
            return Estimate(value, 0.0, 1.0, 0.5)
        rng = np.random.default_rng(self.seed)  # the same draws for every metric
        even = np.full(self.group_count, 1 / self.group_count)
        block = max(1, _CELLS_AT_ONCE // len(labels))
        values = []
        for start in range(0, self.resamples, block):
            rows = min(block, self.resamples - start)
            draws = rng.multinomial(self.group_count, even, size=rows)  # (rows, groups)
            weights = draws[:, self.group_of_image].astype(np.float64)
            values.append(metric(probabilities, labels, weights))
        drawn = np.concatenate(values)
        drawn = drawn[np.isfinite(drawn)]  # a draw of one class only has no AUROC
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (0.0, 1.0)
        error = drawn.std(ddof=1) if len(drawn) > 1 else 0.5
        return Estimate(_unit(value), _unit(min(low, value)), _unit(max(high, value)), _unit(error))


def _unit(value: float) -> float:
    """Into 0..1, which rounding may leave by 1e-16."""
    return float(min(1.0, max(0.0, value)))


def _defined(estimate: Estimate | None) -> Estimate:
    assert estimate is not None  # only AUROC can be undefined
    return estimate


def _hidden_classes(patients: list[int], min_count: int) -> set[int]:
    """Classes whose count is hidden: those of few patients.

    Where that is a single class, the total would give it away; the next smallest goes too.
    """
    present = sorted((c for c in range(len(patients)) if patients[c]), key=patients.__getitem__)
    small = [c for c in present if patients[c] < min_count]
    return set(present[:2]) if len(small) == 1 else set(small)


def _calibration(probabilities: Floats, labels: Integers, bins: int) -> tuple[CalibrationBin, ...]:
    """Non-empty bins (low, high] of equal width in the predicted class's probability."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return tuple(
        CalibrationBin(
            int(inside.sum()), _unit(confidence[inside].mean()), float(correct[inside].mean())
        )
        for inside in (index == b for b in range(bins))
        if inside.any()
    )


def _merged(bins: Sequence[CalibrationBin], min_count: int) -> tuple[CalibrationBin, ...]:
    """Neighbouring bins joined until each holds `min_count` images."""
    result: list[CalibrationBin] = []
    for each in bins:
        if result and result[-1].count < min_count:
            result[-1] = _joined(result[-1], each)
        else:
            result.append(each)
    if len(result) > 1 and result[-1].count < min_count:
        last = result.pop()
        result[-1] = _joined(result[-1], last)
    return tuple(result)


def _joined(a: CalibrationBin, b: CalibrationBin) -> CalibrationBin:
    count = a.count + b.count
    return CalibrationBin(
        count,
        _unit((a.count * a.confidence + b.count * b.confidence) / count),
        _unit((a.count * a.accuracy + b.count * b.accuracy) / count),
    )


def combine(sites: Sequence[SiteMetrics]) -> Overall:
    """Metrics of the federation from those of its sites.

    A stratified estimate: v = Σ w_s v_s with w_s the site's share of the images, and the interval
    v ± 1.96 √(Σ w_s² se_s²), clipped to 0..1, as the sites' patients are independent. Accuracy is
    thereby the pooled one. Balanced accuracy, AUROC and ECE are means of what holds within a site:
    images are never ranked against those of another site. A site with one class has no AUROC and
    is left out of its weights.

    Raises:
        MessageError: No site reported.
    """
    if not sites:
        raise MessageError(
            "evaluation: no site reported metrics; at least one must hold out labelled images"
        )
    with_auroc = [(site.n, site.auroc) for site in sites if site.auroc is not None]
    total = sum(site.n for site in sites)
    return Overall(
        n=total,
        accuracy=_stratified([(site.n, site.accuracy) for site in sites]),
        balanced_accuracy=_stratified([(site.n, site.balanced_accuracy) for site in sites]),
        auroc=_stratified(with_auroc) if with_auroc else None,
        ece=_unit(sum(site.n / total * site.ece for site in sites)),
    )


def _stratified(strata: Sequence[tuple[int, Estimate]]) -> Interval:
    total = sum(n for n, _ in strata)
    value = sum(n / total * each.value for n, each in strata)
    error = math.sqrt(sum((n / total * each.standard_error) ** 2 for n, each in strata))
    return Interval(_unit(value), _unit(value - 1.96 * error), _unit(value + 1.96 * error))


def paired_interval(differences: Sequence[float]) -> Interval:
    """Mean difference of two methods over seeds with its 95 % t-interval.

    Args:
        differences: Method minus other, one for each seed: both saw the same episode and split.

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


def _check_predictions(
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


def _check_consistency(metrics: SiteMetrics, class_count: int, site: str) -> None:
    """Refuse numbers that are each in range but contradict one another."""
    if len(metrics.counts) != class_count:
        raise _refusal(
            site, "counts", f"{len(metrics.counts)} classes where the study has {class_count}"
        )
    known = [count for count in metrics.counts if count is not None]
    if sum(known) > metrics.n or (len(known) == class_count and sum(known) != metrics.n):
        raise _refusal(site, "counts", f"they sum to {sum(known)}, but n is {metrics.n}")
    if metrics.confusion is not None:
        if any(len(row) != class_count for row in (metrics.confusion, *metrics.confusion)):
            raise _refusal(site, "confusion", f"not a {class_count} x {class_count} matrix")
        if [sum(row) for row in metrics.confusion] != list(metrics.counts):
            raise _refusal(site, "confusion", "its rows do not sum to counts")
    if sum(each.count for each in metrics.calibration) != metrics.n:
        raise _refusal(site, "calibration", f"its bins do not sum to n = {metrics.n}")
    for field in ("accuracy", "balanced_accuracy", "auroc"):
        each = getattr(metrics, field)
        if each is not None and not each.low <= each.value <= each.high:
            raise _refusal(site, field, "value lies outside low..high")


def _refusal(site: str, field: str, problem: str) -> MessageError:
    return MessageError(
        f"metrics of site {site!r}: {field}: {problem}; "
        "the site must run the same version of hica as the coordinator"
    )


_SITE_METRICS = TypeAdapter(SiteMetrics)
