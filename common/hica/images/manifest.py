"""Manifest: the CSV that names a site's images and what is known of each."""

import csv
import io
import stat
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hica.errors import DataError, HicaError
from hica.images.causes import by_cause, cause_of
from hica.images.columns import COLUMNS
from hica.images.groups import group_names
from hica.images.named_files import NamedFiles, plain_name
from hica.images.table import Row, Table, read_table
from hica.storage import write_atomically

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Record:
    """One image of a site; only `image` is required."""

    image: Path
    label: str | None = None
    """None: unlabelled."""
    patient_id: str | None = None
    split: str | None = None
    """`train`, `test` or None: to be decided."""
    mask: Path | None = None
    findings: tuple[str, ...] = ()
    group: str = ""
    """Images of one group never lie on both sides of a split; default: patient, else image."""
    report: str | None = None
    name: str = ""
    """The image as the manifest writes it: the same on any machine; default: its file name."""
    dup_group: str | None = field(default=None, compare=False)
    """As the manifest has it; what it links is in `group`."""
    sha256: str | None = field(default=None, compare=False)
    """Of the image file, where a study was drawn with it: it is used with no other content."""
    line: int = field(default=0, compare=False)
    """In the manifest; 0: in none."""

    def __post_init__(self) -> None:
        name = self.name or self.image.name
        object.__setattr__(self, "name", name)
        if not self.group:
            group = group_names([name], [self.patient_id], [None])[0]
            object.__setattr__(self, "group", group)


class Examined(NamedTuple):
    """What a manifest holds, the rows that cannot be used left out."""

    records: list[Record]
    problems: list[HicaError]
    """What is wrong with the other rows, each cause once (`hica.images.causes`)."""
    notes: list[str]
    """Columns that are not read or were taken for another, and how the file is written."""


def read_manifest(path: Path) -> list[Record]:
    """Read a manifest.

    A CSV in UTF-8 (or UTF-16) with a header; columns as in `COLUMNS`, of which only `image` is
    required, and others ignored. Fields are separated by commas, semicolons or tabs. Paths are
    relative to the manifest's folder or absolute; findings are separated by `|`; an empty field is
    None. Rows linked by patient or `dup_group` are one group.

    Raises:
        DataError: Names the file, the line, the column and the remedy.
    """
    found = examine_manifest(path)
    if found.problems:
        raise found.problems[0]
    return found.records


def examine_manifest(path: Path) -> Examined:
    """Read a manifest as `read_manifest` does, but go on past rows that cannot be used.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    table = read_table(path)
    if not table.rows and not table.problems:
        raise DataError(f"{path}: the manifest names no images; add a row for each image")
    rows = [row.fields for row in table.rows]
    groups = group_names(
        [row["image"] for row in rows],
        [row["patient_id"] for row in rows],
        [row["dup_group"] for row in rows],
    )
    counts = Counter(plain_name(row["image"]) for row in rows)
    files = NamedFiles(path.parent)
    records: list[Record] = []
    problems: list[tuple[int, str, HicaError]] = list(table.problems)
    for row, group in zip(table.rows, groups, strict=True):
        try:
            named = counts[plain_name(row.fields["image"])]
            records.append(_record(row, group, named, files))
        except _FieldError as error:
            problem = DataError(f"{path}: line {row.line}: column {error.column}: {error}")
            problems.append((row.line, error.cause, problem))
    in_order = sorted(problems, key=lambda each: each[0])
    said = by_cause((f"line {line}", cause, problem) for line, cause, problem in in_order)
    return Examined(records, said, table.notes)


def fields_by_image(path: Path) -> dict[str, dict[str, str]]:
    """All fields of every row, also of columns that nothing else reads, by image and column.

    Raises:
        DataError: The manifest cannot be read.
    """
    table = _whole(path)
    return {
        row.fields["image"]: {name: row.fields[name] for name in table.names} for row in table.rows
    }


def write_manifest(path: Path, records: Iterable[Record], groups: bool = True) -> None:
    """Write records as a manifest that `read_manifest` reads back as they are.

    Paths below the manifest's folder are written relative to it, others absolute. Without `groups`
    the column `dup_group` stays empty: a group that is named after its file only is none.

    Raises:
        DataError: The name of a file is not in UTF-8.
        StorageError: The file cannot be written.
    """
    folder = path.parent.absolute()

    def written(file: Path | None) -> str:
        if file is None:
            return ""
        full = file.absolute()
        return (full.relative_to(folder) if folder in full.parents else full).as_posix()

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        fields = (record.label, record.patient_id, record.split)
        writer.writerow(
            [
                written(record.image),
                *(field or "" for field in fields),
                written(record.mask),
                "|".join(record.findings),
                record.report or "",
                record.group if groups else "",
            ]
        )
    try:
        data = text.getvalue().encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: the file name {error.object[error.start - 20 : error.end + 20]!r} is not in "
            "UTF-8, which a manifest is written in; rename the file"
        ) from None
    write_atomically(path, data)


def patients_by_image(path: Path) -> dict[str, str]:
    """The patient of each image that a manifest names, both as it writes them; empty: none.

    Raises:
        DataError: The manifest cannot be read.
    """
    return {row.fields["image"]: row.fields["patient_id"] for row in _whole(path).rows}


def take_out(path: Path, images: Set[str]) -> None:
    """Take the rows of some images out of a manifest; all other lines stay to the byte.

    Raises:
        DataError: The manifest cannot be read.
        StorageError: It cannot be written.
    """
    table = _whole(path)
    lines = list(io.StringIO(table.text, newline=""))
    out = {
        line
        for row in table.rows
        if row.fields["image"] in images
        for line in range(row.start, row.end)
    }
    left = "".join(line for number, line in enumerate(lines) if number not in out)
    mode = stat.S_IMODE(path.stat().st_mode)
    write_atomically(path, left.encode(table.encoding), mode=0o600)
    path.chmod(mode)  # those who could read it still can


def _whole(path: Path) -> Table:
    """The table of a manifest in which no row is wrong.

    Raises:
        DataError: The first thing that is wrong.
    """
    table = read_table(path)
    if table.problems:
        raise table.problems[0].problem
    return table


class _FieldError(Exception):
    """A field that cannot be used; the words say what to do, not in which row."""

    def __init__(self, column: str, words: str, cause: str = "") -> None:
        super().__init__(words)
        self.column = column
        self.cause = f"{column}: {cause or words}"


def _record(row: Row, group: str, named: int, files: NamedFiles) -> Record:
    """The record of a row whose image is named in `named` rows.

    Raises:
        _FieldError: A field cannot be used.
    """
    fields = row.fields
    if named > 1:
        raise _FieldError(
            "image", f"{fields['image']} is named in {named} rows; keep one of them", "named twice"
        )
    return Record(
        image=_existing("image", fields["image"], files),
        label=fields["label"] or None,
        patient_id=fields["patient_id"] or None,
        split=_split(fields["split"]),
        mask=_existing("mask", fields["mask"], files) if fields["mask"] else None,
        findings=tuple(part.strip() for part in fields["findings"].split("|") if part.strip()),
        group=group,
        report=fields["report"] or None,
        name=fields["image"],
        dup_group=fields["dup_group"] or None,
        line=row.line,
    )


def _existing(column: str, name: str, files: NamedFiles) -> Path:
    """The file `name` of a row, which must exist."""
    try:
        return files.find(name)
    except DataError as error:
        raise _FieldError(column, str(error), cause_of(str(error), name)) from None


def _split(value: str) -> str | None:
    """`train`, `test` or None."""
    if value and value not in SPLITS:
        meant = value.casefold() if value.casefold() in SPLITS else ""
        raise _FieldError(
            "split",
            f"{value!r} is not one of {', '.join(SPLITS)}; "
            + (f"write {meant}, or " if meant else "")
            + "leave it empty to have the split drawn",
            "no split",
        )
    return value or None
