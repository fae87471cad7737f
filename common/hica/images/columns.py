"""columns: which column of a manifest is which, also where its name is not written as it should be.

A name that differs in case, blanks, `-` and `_` only is taken, and said. One that is a slip of the
pen is refused where the column itself is absent: `lable` would leave all images without label,
`patient` would let one patient come to lie on both sides of the test, and nobody would know.
"""

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from hica.errors import DataError
from hica.printable import listed

COLUMNS = ("image", "label", "patient_id", "split", "mask", "findings", "report", "dup_group")
PATIENT = {"patient", "patients", "pid", "patientno", "patientnr", "patientnumber", "patientkey"}
"""Names, without blanks and signs, that can mean nothing but `patient_id`."""
PERHAPS = {
    "label": {"class", "classes", "diagnosis", "target", "category", "groundtruth"},
    "split": {"set", "subset", "fold", "partition", "phase"},
    "mask": {"segmentation", "maskfile", "maskpath"},
    "patient_id": {"subject", "subjectid", "case", "caseid", "mrn"},
    "dup_group": {"group", "duplicates"},
}
"""Names that may mean one of `COLUMNS`, or something else."""
FILES = {"file", "filename", "filepath", "path", "imagepath", "imagefile", "imagename", "img"}
"""Names that may mean `image`."""


class Columns(NamedTuple):
    """The columns of a table, in their order."""

    names: list[str]
    """Those of `COLUMNS` by that name, others as the file has them."""
    notes: list[str]
    """What was taken for what, and what is not read."""


def has_image(header: Sequence[str]) -> bool:
    """Whether one of the names means `image`."""
    return any(_bare(name) == "image" for name in header)


def read_columns(path: Path, line: int, header: Sequence[str]) -> Columns:
    """Tell which column is which.

    Raises:
        DataError: There is no `image`, two columns mean the same, or one is named nearly as one of
            `COLUMNS` that is absent.
    """
    written = [_clean(name) for name in header]
    known = {_bare(name): name for name in COLUMNS}
    names = [known.get(_bare(name), name) for name in written]
    for name in COLUMNS:
        same = [f"`{old}`" for old, new in zip(written, names, strict=True) if new == name]
        if len(same) > 1:
            raise DataError(
                f"{path}: line {line}: {len(same)} columns are named {name}: {', '.join(same)}; "
                "keep one of them and give the others another name"
            )
    unknown = [name for name in names if name and name not in COLUMNS]
    if "image" not in names:
        likely = [name for name in unknown if _bare(name) in FILES or _slip(name, "image")]
        which = f"`{likely[0]}`, if that is" if likely else "the column that holds"
        raise DataError(
            f"{path}: line {line}: no column `image`; columns found: "
            f"{', '.join(filter(None, written)) or 'none'}: name {which} the image files `image`, "
            "columns separated by commas"
        )
    return Columns(names, _notes(path, line, written, names, unknown))


def _notes(
    path: Path, line: int, written: list[str], names: list[str], unknown: list[str]
) -> list[str]:
    """What is taken for what, and what is not read.

    Raises:
        DataError: A column is named nearly as one that is absent.
    """
    absent = [name for name in COLUMNS if name not in names]
    for column in unknown:
        for name in absent:
            if _slip(column, name):
                raise DataError(
                    f"{path}: line {line}: no column `{name}`, but `{column}`, which is not read; "
                    f"name it `{name}` if it is that, and leave it out or give it quite another "
                    "name if not"
                )
    taken = [f"`{old}` for `{new}`" for old, new in zip(written, names, strict=True) if old != new]
    notes = [f"{path}: columns taken: {', '.join(taken)}"] if taken else []
    if unknown:
        notes.append(f"{path}: columns that are not read: {listed(unknown)}")
    notes += [
        f"{path}: no column `{name}`, and `{column}` is not read: if it is that, name it `{name}`"
        for column in unknown
        for name in absent
        if _bare(column) in PERHAPS.get(name, ())
    ]
    return notes


def _clean(name: str) -> str:
    """A name without what cannot be seen: no-break spaces, marks of byte order, blanks around."""
    shown = (" " if sign.isspace() else sign for sign in unicodedata.normalize("NFC", name))
    return "".join(sign for sign in shown if sign.isprintable()).strip()


def _bare(name: str) -> str:
    """A name as it is compared: letters and digits only, in small letters."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in folded if sign.isalnum())


def _slip(column: str, name: str) -> bool:
    """Whether `column` is meant to be `name`: a letter too many or too few, or two exchanged."""
    mine, theirs = _bare(column), _bare(name)
    if name == "patient_id" and mine in PATIENT:
        return True
    close = SequenceMatcher(None, mine, theirs).ratio() >= 0.8
    return close and abs(len(mine) - len(theirs)) <= 1
