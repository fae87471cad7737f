"""manifest_checks: labels against the classes of a study, and a split that is given in full."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from hica.errors import DataError
from hica.images.manifest import Record
from hica.printable import listed


def check_labels(records: Iterable[Record], classes: Sequence[str], source: str) -> None:
    """Check that every label of a site's records is one of the study's classes, or None.

    Raises:
        DataError: Names the manifest `source`, lists the unknown labels, how often each occurs, and
            the classes.
    """
    unknown: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.label is not None and record.label not in classes:
            unknown[record.label].append(record)
    if unknown:
        told = [_unknown_label(label, unknown[label], classes) for label in sorted(unknown)]
        raise DataError(
            f"{source}: column label: not classes of the study: {listed(told)}; "
            f"the classes are {', '.join(classes)}: rename these labels or leave them empty"
        )


def _unknown_label(label: str, records: Sequence[Record], classes: Sequence[str]) -> str:
    """A label that is no class: how often it occurs, where first, and which class it may mean."""
    meant = [name for name in classes if _alike(name) == _alike(label)]
    where = f" from line {records[0].line} on" if records[0].line else ""
    which = f" for {meant[0]!r}" if meant else ""
    return f"{label!r} ({len(records)}){where}{which}"


def _alike(label: str) -> str:
    """A label without the difference of capitals, blanks and what cannot be seen."""
    return "".join(sign for sign in label.casefold() if sign.isprintable() and not sign.isspace())


def check_split(records: Iterable[Record], source: str) -> None:
    """Check that the split is given for every labelled record or for none.

    Raises:
        DataError: Names the manifest `source` and one of the records without.
    """
    labelled = [record for record in records if record.label]
    empty = [record.name for record in labelled if not record.split]
    if empty and len(empty) < len(labelled):
        raise DataError(
            f"{source}: column split: empty in {len(empty)} labelled rows, such as {empty[0]}, and "
            "filled in others; write train or test in each labelled row, or leave all empty to "
            "have the split drawn"
        )
