"""Disclosure control: counts of few patients are hidden, also from a subtraction."""

from collections.abc import Sequence

from hica.method.intervals import clipped
from hica.method.site_metrics import CalibrationBin


def hidden_classes(patients: list[int], min_count: int) -> set[int]:
    """Classes whose count is hidden: those of few patients.

    Where that is a single class, the total would give it away; the next smallest goes too.
    """
    present = sorted((c for c in range(len(patients)) if patients[c]), key=patients.__getitem__)
    small = [c for c in present if patients[c] < min_count]
    return set(present[:2]) if len(small) == 1 else set(small)


def merged_bins(bins: Sequence[CalibrationBin], min_count: int) -> tuple[CalibrationBin, ...]:
    """Join neighbouring bins until each holds `min_count` images."""
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
        clipped((a.count * a.confidence + b.count * b.confidence) / count),
        clipped((a.count * a.accuracy + b.count * b.accuracy) / count),
    )
