"""preflight_set: what only shows when all images of a site are looked at together.

A problem is what makes a result worthless and can be mended in the manifest: one picture with two
labels or of two patients, one patient for all, a test that holds one class of several. Other
things may be as they are at this hospital, and are notes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

from hica.errors import DataError
from hica.images.manifest import Record
from hica.printable import listed
from hica_client.preflight_images import Seen
from hica_client.preflight_report import Preflight

FEW = 5
"""Images of a class, below which nothing is said of how they differ from those of others."""
APART = 0.9
"""How much the shares of two classes must differ, summed over kinds of files, to tell them by it
alone: 1 where they have no kind in common."""
LARGER = 2.0
"""How much longer the sides of the images of one class must be."""
FEWEST_SIZES = 3
"""Different sizes in a class, up to which they are no chance."""
MOST_OF_ALL = 0.5
"""Share of the images, above which those of one patient_id are not believed to be of one."""
MANY = 20
"""Images, below which one patient may well have most."""
EMPTY, WHOLE = 0.0, 0.95
"""Share of an image that a mask covers, up to which it is empty, and from which on it is all."""


def check_set(
    found: Preflight, records: Sequence[Record], seen: Sequence[Seen], manifest: Path
) -> dict[str, str]:
    """Look at patients, classes, sides of the split, copies, masks and shortcuts.

    Gives what is wrong with single images, in a few words by their names, for the contact sheet.
    """
    labelled = [record for record in records if record.label]
    for check in (check_patients, check_sides):
        with found.gathering():
            found.notes += check(labelled, manifest)
    found.notes += alike_labels(labelled)
    marks = check_masks(found, seen) | check_copies(found, seen, manifest)
    found.notes += shortcut_notes(seen)
    return marks


def check_patients(labelled: Sequence[Record], manifest: Path) -> list[str]:
    """Note a patient who has most of the labelled images.

    Raises:
        DataError: One patient has all of them, so that nobody can be held out.
    """
    counts = Counter(record.patient_id for record in labelled if record.patient_id)
    if not counts or len(labelled) < 2:
        return []
    patient, most = counts.most_common(1)[0]
    if most == len(labelled):
        raise DataError(
            f"{manifest}: column patient_id: all {most:,} labelled images are of one patient, "
            f"{patient!r}: nobody can be held out, and nobody could say how good the model is "
            "here. Give each patient an own pseudonym; an export may have written the same into all"
        )
    if most > MOST_OF_ALL * len(labelled) and len(labelled) >= MANY:
        return [
            f"{most:,} of {len(labelled):,} labelled images are of one patient, {patient!r}: is "
            "that what an export writes where it knows none? Leave the field empty there"
        ]
    return []


def check_sides(labelled: Sequence[Record], manifest: Path) -> list[str]:
    """Note a site, or a side of a given split, that has images of one class only.

    Raises:
        DataError: The test has one class only, though there are several.
    """
    classes = sorted({record.label or "" for record in labelled})
    if len(classes) == 1:
        return [f"all labelled images are of one class, {classes[0]}: nothing is told apart here"]
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for record in labelled:
        sides[record.split or ""].add(record.label or "")
    if len(sides["test"]) == 1:
        raise DataError(
            f"{manifest}: column split: the test has images of {min(sides['test'])} only, of "
            f"{', '.join(classes)}: whoever says {min(sides['test'])} always would be right. Share "
            "out each class, or leave the column empty to have the split drawn"
        )
    notes = []
    for side in filter(sides.__contains__, ("train", "test")):
        absent = [name for name in classes if name not in sides[side]]
        if sides[side] and absent:
            notes.append(f"the side {side} of the split has no image of {', '.join(absent)}")
    return notes


def alike_labels(labelled: Iterable[Record]) -> list[str]:
    """Note labels that differ in capitals, blanks and signs only."""
    counts = Counter(record.label or "" for record in labelled)
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        alike["".join(sign for sign in label.casefold() if sign.isalnum())].append(label)
    return [
        f"labels that look alike are different classes: "
        f"{', '.join(f'{label!r} ({counts[label]})' for label in labels)}: write them the same way"
        for labels in alike.values()
        if len(labels) > 1
    ]


def check_copies(found: Preflight, seen: Iterable[Seen], manifest: Path) -> dict[str, str]:
    """Find pictures that are there more than once: the same file, or the same decoded pixels.

    Gives those with two labels or of two patients.
    """
    same: defaultdict[str, list[Record]] = defaultdict(list)
    for each in seen:
        if not each.look.blank:
            same[each.look.sha256].append(each.record)
    copies = [rows for rows in same.values() if len(rows) > 1]
    found.facts["copies"] = [[row.name for row in rows] for rows in copies]
    labels = [rows for rows in copies if len({row.label for row in rows if row.label}) > 1]
    apart = [rows for rows in copies if len({row.group for row in rows}) > 1]
    patients = [rows for rows in apart if len({row.patient_id for row in rows} - {None}) > 1]
    nameless = [rows for rows in apart if rows not in patients]
    if labels:
        _problem(
            found,
            labels,
            f"{manifest}: column label: {_pictures(labels)} under two labels: {_pairs(labels)}: "
            "correct the label, or take both rows out",
        )
    if patients:
        _problem(
            found,
            patients,
            f"{manifest}: column patient_id: {_pictures(patients)} under two patients: "
            f"{_pairs(patients)}: correct patient_id, take one row out, or give both rows the same "
            "dup_group; else what is learnt from one is tested on the other",
        )
    if nameless:
        found.notes.append(
            f"{_pictures(nameless)} there more than once: {_pairs(nameless)}: take one row out, or "
            "give both the same dup_group; else what is learnt from one is tested on the other"
        )
    marks = {row.name: "is there twice" for rows in nameless for row in rows}
    marks |= {row.name: "of two patients" for rows in patients for row in rows}
    return marks | {row.name: "has two labels" for rows in labels for row in rows}


def _pictures(copies: Sequence[Sequence[Record]]) -> str:
    return "1 picture is" if len(copies) == 1 else f"{len(copies):,} pictures are"


def _pairs(copies: Iterable[Sequence[Record]]) -> str:
    return listed([" = ".join(row.name for row in rows[:3]) for rows in copies])


def _problem(found: Preflight, copies: Iterable[Sequence[Record]], message: str) -> None:
    problem = DataError(message)
    problem.places = [row.name for rows in copies for row in rows]
    found.problems.append(problem)


def check_masks(found: Preflight, seen: Iterable[Seen]) -> dict[str, str]:
    """Note masks that cover all, and empty ones in a class where most are not; gives both.

    A class all of whose masks are empty is one of healthy images, and so may one without label be.
    """
    by_class: defaultdict[str | None, list[Seen]] = defaultdict(list)
    for each in seen:
        if each.masked is not None:
            by_class[each.record.label].append(each)
    empty, whole = list[str](), list[str]()
    for label, masked in by_class.items():
        none = [each.record.name for each in masked if (each.masked or 0.0) <= EMPTY]
        empty += none if label and 2 * len(none) < len(masked) else []
        whole += [each.record.name for each in masked if (each.masked or 0.0) >= WHOLE]
    if empty:
        found.notes.append(
            f"{len(empty):,} masks are empty, unlike others of the class: {listed(empty)}: leave "
            "the field mask empty there, or export the mask anew"
        )
    if whole:
        found.notes.append(
            f"{len(whole):,} masks cover the whole image: {listed(whole)}: where there is a lesion "
            "a mask is not 0, and 0 elsewhere; it may be inverted"
        )
    return dict.fromkeys(empty, "the mask is empty") | dict.fromkeys(whole, "the mask covers all")


def shortcut_notes(seen: Iterable[Seen]) -> Iterator[str]:
    """Note classes that can be told apart by how their files are made: two of them, and a count."""
    by_class: defaultdict[str, list[Seen]] = defaultdict(list)
    for each in seen:
        if each.record.label:
            by_class[each.record.label].append(each)
    classes = [name for name in sorted(by_class) if len(by_class[name]) >= FEW]
    pairs = [
        (one, other, by_class[one], by_class[other]) for one, other in combinations(classes, 2)
    ]
    kinds = [(one, other, told) for one, other, a, b in pairs if (told := _other_kinds(a, b))]
    sizes = [(one, other, told) for one, other, a, b in pairs if (told := _other_sizes(a, b))]
    for found, remedy in ((kinds, "in the same way"), (sizes, "at the same resolution")):
        if found:
            one, other, told = found[0]
            more = f" (and so of {len(found) - 1} more pairs of classes)" if found[1:] else ""
            yield (
                f"images of {one} are {told[0]}, those of {other} {told[1]}{more}: a model can "
                f"learn that in place of the disease; export all {remedy}"
            )


def _other_kinds(one: Sequence[Seen], other: Sequence[Seen]) -> list[str]:
    """The most frequent kind of file of each class, where they have hardly any in common."""
    kinds = [Counter(each.kind for each in rows) for rows in (one, other)]
    if _difference(*kinds) < APART:
        return []
    return [count.most_common(1)[0][0] for count in kinds]


def _other_sizes(one: Sequence[Seen], other: Sequence[Seen]) -> list[str]:
    """The most frequent size of each class, where one can be told from the other by it."""
    sides = [
        median((each.look.width * each.look.height) ** 0.5 for each in rows)
        for rows in (one, other)
    ]
    sizes = [
        Counter(f"{each.look.width}×{each.look.height} px" for each in rows)
        for rows in (one, other)
    ]
    # Of many sizes two classes share few by chance.
    told_by_size = max(map(len, sizes)) <= FEWEST_SIZES and _difference(*sizes) >= APART
    if max(sides) < LARGER * min(sides) and not told_by_size:
        return []
    return [count.most_common(1)[0][0] for count in sizes]


def _difference(one: Counter[str], other: Counter[str]) -> float:
    """Half the summed difference of the shares of all kinds: 0 the same, 1 nothing in common."""
    sums = one.total(), other.total()
    return sum(abs(one[kind] / sums[0] - other[kind] / sums[1]) for kind in one | other) / 2
