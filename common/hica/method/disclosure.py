"""Disclosure control: which numbers of few patients a site does not tell.

A class is small where it has some patients, but fewer than the study's `min_count`: at most
`min_count - 1`, and at least one. How many it has must not follow from anything that is told.
Patients are counted, not images.

**Held-out patients.** Those of a small class are not evaluated: their images stand in no metric, in
no count and in no total. So all that is told is the same for 1 to `min_count - 1` of them, whoever
they are and whatever weights they were to be measured with. Rounding the metrics would not do that.
With 10, 20 and 1 patients, "all of them first class" and "all second class" have accuracies 10/31
and 20/31; rounded down to steps of 5 patients they say "at least 10" and "at least 20" of 31, so
the third class has one.

**Shots.** These are learnt from, and the answers are weighted by how many there are: their total
has to be told. Where a class is small, no class is counted at all, an absent one neither. What is
told is then the same for all sites with the same total, and does not say which class is small. What
remains is the total: near the largest, the number of classes times the shots, few numbers add up
to it, and at a site with shots of one class only it is that class's count.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from hica.method.intervals import clipped
from hica.method.site_metrics import CalibrationBin

Label = TypeVar("Label", bound=Hashable)


def patients_of(
    labels: Iterable[Label], groups: Iterable[str], classes: Sequence[Label]
) -> list[int]:
    """How many patients [C] have an image of each class.

    Of the labels [n] and the patients (or groups of near-duplicates) [n] of images.
    """
    found = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    return [found[name] for name in classes]


def small_classes(patients: Sequence[int], min_count: int) -> set[int]:
    """Indices of the classes that have some patients, of `patients` [C], but too few to be told."""
    return {c for c, number in enumerate(patients) if 0 < number < min_count}


def counts_told(counts: Sequence[int], patients: Sequence[int], min_count: int) -> list[int | None]:
    """The counts [C] of a total that is told too: all of them, or none where a class is small."""
    if small_classes(patients, min_count):
        return [None] * len(counts)
    return list(counts)


def merged_bins(
    bins: Sequence[CalibrationBin], patients: Sequence[Iterable[str]], min_count: int
) -> tuple[CalibrationBin, ...]:
    """Join neighbouring bins until each holds `min_count` patients; `patients` names those of each.

    All together have to be as many.
    """
    result: list[CalibrationBin] = []
    inside: list[set[str]] = []
    for each, names in zip(bins, patients, strict=True):
        if result and len(inside[-1]) < min_count:
            result[-1] = _joined(result[-1], each)
            inside[-1] |= set(names)
        else:
            result.append(each)
            inside.append(set(names))
    if len(result) > 1 and len(inside[-1]) < min_count:
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
