"""Manifest: the CSV that names a site's images and what is known of each."""

import csv
import io
import stat
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from hica.errors import DataError
from hica.images.groups import group_names
from hica.storage import read_file, write_atomically

COLUMNS = ("image", "label", "patient_id", "split", "mask", "findings", "report", "dup_group")
SPLITS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".nii", ".nii.gz")
"""Files that `records_from_folders` takes for images."""


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

    def __post_init__(self) -> None:
        name = self.name or self.image.name
        object.__setattr__(self, "name", name)
        if not self.group:
            group = group_names([name], [self.patient_id], [None])[0]
            object.__setattr__(self, "group", group)


def read_manifest(path: Path) -> list[Record]:
    """Read a manifest.

    A CSV in UTF-8 with a header; columns as in `COLUMNS`, of which only `image` is required, and
    others ignored. Paths are relative to the manifest's folder or absolute; findings are separated
    by `|`; an empty field is None. Rows linked by patient or `dup_group` are one group.

    Raises:
        DataError: Names the file, the line, the column and the remedy.
    """
    records, problems = examine_manifest(path)
    if problems:
        raise problems[0]
    return records


def examine_manifest(path: Path) -> tuple[list[Record], list[DataError]]:
    """Read a manifest as `read_manifest` does, but go on past rows that cannot be used.

    Gives the records of the good rows, and what is wrong with the others.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    rows = _read_rows(path)
    if not rows:
        raise DataError(f"{path}: the manifest names no images; add a row for each image")
    names = [row["image"] for _, row in rows]
    groups = group_names(
        names, [row["patient_id"] for _, row in rows], [row["dup_group"] for _, row in rows]
    )
    counts = Counter(names)
    records: list[Record] = []
    problems: list[DataError] = []
    for (line, row), group in zip(rows, groups, strict=True):
        try:
            records.append(_record(path, line, row, group, counts[row["image"]]))
        except DataError as problem:
            problems.append(problem)
    return records, problems


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
    return {row["image"]: row["patient_id"] for _, row in _read_rows(path)}


def take_out(path: Path, images: Set[str]) -> None:
    """Take the rows of some images out of a manifest; all other lines stay to the byte.

    Raises:
        DataError: The manifest cannot be read.
        StorageError: It cannot be written.
    """
    _read_rows(path)  # says what is wrong with it
    lines = read_file(path).splitlines(keepends=True)
    reader = csv.reader(io.StringIO(b"".join(lines).decode("utf-8-sig"), newline=""))
    column = [name.strip() for name in next(reader)].index("image")
    start = reader.line_num
    left = lines[:start]
    for fields in reader:
        if not images & set(map(str.strip, fields[column : column + 1])):
            left += lines[start : reader.line_num]
        start = reader.line_num
    mode = stat.S_IMODE(path.stat().st_mode)
    write_atomically(path, b"".join(left), mode=0o600)
    path.chmod(mode)  # those who could read it still can


def records_from_folders(root: Path) -> list[Record]:
    """Records of images laid out as one folder per class: `root/CLASS/….png`.

    Raises:
        DataError: No folder below `root` holds an image.
    """
    files = sorted(
        file
        for file in root.glob("*/**/*")
        if file.name.lower().endswith(SUFFIXES) and file.is_file()
    )
    if not files:
        raise DataError(
            f"{root}: no images found; expected one folder per class holding "
            f"{', '.join(SUFFIXES)} files"
        )
    names = [file.relative_to(root).as_posix() for file in files]
    return [
        Record(image=file, label=name.split("/")[0], name=name)
        for file, name in zip(files, names, strict=True)
    ]


def check_labels(records: Iterable[Record], classes: Sequence[str], source: str) -> None:
    """Check that every label of a site's records is one of the study's classes, or None.

    Raises:
        DataError: Names the manifest `source`, lists the unknown labels, how often each occurs, and
            the classes.
    """
    counts = Counter(record.label for record in records if record.label is not None)
    unknown = [f"{label!r} ({n})" for label, n in sorted(counts.items()) if label not in classes]
    if unknown:
        raise DataError(
            f"{source}: column label: not classes of the study: {', '.join(unknown)}; "
            f"the classes are {', '.join(classes)}: rename these labels or leave them empty"
        )


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


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and the fields of `COLUMNS`, stripped and empty where absent, of every row."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); save the file as CSV UTF-8") from None
    except OSError as error:
        raise DataError(
            f"{path}: manifest cannot be read: {error.strerror}; name a CSV file in data.manifest "
            "of the site file"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = []
    try:
        header = [column.strip() for column in next(reader, [])]
        if "image" not in header:
            raise DataError(
                f"{path}: line 1: no column `image`; columns found: {', '.join(header) or 'none'}: "
                "name the column that holds the image files `image`, columns separated by commas"
            )
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) > len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(fields)} fields for {len(header)} "
                    "columns; put fields that hold a comma in double quotes"
                )
            given = dict(zip(header, map(str.strip, fields), strict=False))
            if not given["image"]:
                raise DataError(
                    f"{path}: line {reader.line_num}: column image: empty; name a file or take "
                    "the row out"
                )
            rows.append((reader.line_num, {column: given.get(column, "") for column in COLUMNS}))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not valid CSV: {error}") from None
    return rows


def _record(path: Path, line: int, row: dict[str, str], group: str, named: int) -> Record:
    """The record of a row whose image is named in `named` rows."""
    if named > 1:
        raise DataError(
            f"{path}: line {line}: column image: {row['image']} is named in {named} rows; keep one "
            "of them"
        )
    return Record(
        image=_existing(path, line, "image", row["image"]),
        label=row["label"] or None,
        patient_id=row["patient_id"] or None,
        split=_split(path, line, row["split"]),
        mask=_existing(path, line, "mask", row["mask"]) if row["mask"] else None,
        findings=tuple(part.strip() for part in row["findings"].split("|") if part.strip()),
        group=group,
        report=row["report"] or None,
        name=row["image"],
        dup_group=row["dup_group"] or None,
    )


def _existing(path: Path, line: int, column: str, name: str) -> Path:
    """The file `name` of a row, which must exist."""
    file = path.parent / name
    try:
        found, is_folder = file.is_file(), file.is_dir()
    except OSError as error:  # a name that no system takes, a folder that is closed
        raise DataError(
            f"{path}: line {line}: column {column}: {name[:200]} cannot be looked at: "
            f"{error.strerror}; name a file that this user may read"
        ) from None
    if is_folder:
        raise DataError(
            f"{path}: line {line}: column {column}: {name} is a folder; name one image in it, each "
            "in a row of its own"
        )
    if not found:
        raise DataError(
            f"{path}: line {line}: column {column}: {name} does not exist; paths are relative to "
            f"{path.parent}"
        )
    return file


def _split(path: Path, line: int, value: str) -> str | None:
    """`train`, `test` or None."""
    if value and value not in SPLITS:
        raise DataError(
            f"{path}: line {line}: column split: {value!r} is not one of {', '.join(SPLITS)}; "
            "leave it empty to have the split drawn"
        )
    return value or None
