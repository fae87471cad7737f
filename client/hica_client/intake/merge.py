"""Rows of an import and the manifest that is there: what a person has written stays as it is.

A row that stands as an import wrote it is brought up to date, and any other is left alone.
"""

import csv
import io
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hica.errors import DataError
from hica.images.columns import COLUMNS
from hica.images.manifest import patients_by_image
from hica.storage import cannot_be_written, read_file, replacing

Row = dict[str, str]
"""Fields by column; `image` is the key."""


@dataclass
class Merged:
    """A manifest with the rows of an import in it."""

    data: bytes
    added: int = 0
    replaced: list[Row] = field(default_factory=list)
    """Rows as an earlier import wrote them, in whose place there are others now."""
    edited: int = 0
    """Rows that a person has changed and that the import would write otherwise."""


@dataclass(frozen=True)
class Line:
    """A row of the manifest as it stands in the file."""

    raw: str
    row: Row


class Manifest:
    """The manifest that is there; an empty one where there is none."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            DataError: It cannot be read.
        """
        self.path = path
        self.columns: list[str] = list(COLUMNS)
        self.head = ""
        self.end = "\n"
        self.lines: list[Line] = []
        if path.exists() and read_file(path).strip():
            patients_by_image(path)  # says what is wrong with it
            self._read(read_file(path))

    @property
    def rows(self) -> Iterator[Row]:
        """The rows that name an image."""
        return (line.row for line in self.lines if line.row)

    def merged(self, rows: Mapping[str, Row], is_ours: Callable[[Row], bool]) -> Merged:
        """The manifest with rows, given by image; `is_ours`: whether an import wrote a row."""
        new = dict(rows)
        missing = [name for name in COLUMNS if name not in self.columns]
        needed = [name for name in missing if any(row.get(name) for row in new.values())]
        columns = [*self.columns, *needed]
        merged = Merged(b"")
        out = [_written(columns, columns, self.end) if needed or not self.head else self.head]
        for line in self.lines:
            wanted = new.pop(line.row["image"], None) if line.row else None
            if wanted is not None and comparable(wanted) != comparable(line.row):
                if is_ours(line.row):
                    merged.replaced.append(line.row)
                    out.append(_written({**line.row, **wanted}, columns, self.end))
                    continue
                merged.edited += 1
            if needed and line.row:
                out.append(_written(line.row, columns, self.end))
            else:
                out.append(line.raw if line.raw.endswith(("\n", "\r")) else line.raw + self.end)
        out += [_written(row, columns, self.end) for row in new.values()]
        merged.added = len(new)
        merged.data = "".join(out).encode()
        return merged

    def write(self, merged: Merged) -> None:
        """Put the merged manifest in place, where it is another.

        Raises:
            StorageError: It cannot be written; the old one is untouched.
        """
        if self.path.exists() and read_file(self.path) == merged.data:
            return
        try:  # by one name, so that an import that is killed here leaves nothing for good
            part = self.path.with_name(f".{self.path.name}.part")
            mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0o600
            with replacing(self.path, part=part, mode=0o600) as file:
                file.write_bytes(merged.data)
                file.chmod(mode)  # those who could read it still can
        except OSError as error:
            raise cannot_be_written(self.path, error) from error

    def _read(self, data: bytes) -> None:
        try:
            lines = [line.decode() for line in data.splitlines(keepends=True)]
        except UnicodeDecodeError:
            raise self._other_form() from None
        reader = csv.reader(io.StringIO("".join(lines).removeprefix("\ufeff"), newline=""))
        self.columns = [_column(name) for name in next(reader)]
        if "image" not in self.columns:
            raise self._other_form()
        start = reader.line_num
        self.head = "".join(lines[:start])
        self.end = "\r\n" if self.head.endswith("\r\n") else "\n"
        for fields in reader:
            row = dict(zip(self.columns, map(str.strip, fields), strict=False))
            raw = "".join(lines[start : reader.line_num])
            self.lines.append(Line(raw, row if row.get("image") else {}))
            start = reader.line_num

    def _other_form(self) -> DataError:
        return DataError(
            f"{self.path}: is not written as an import can add rows to it: save it as CSV UTF-8, "
            "separated by commas, with a column `image`, then import again"
        )


def _column(name: str) -> str:
    """The column that is meant by a name: `Patient ID` is `patient_id`."""
    known = {column.replace("_", ""): column for column in COLUMNS}
    return known.get("".join(filter(str.isalnum, name.casefold())), name.strip())


def comparable(row: Row) -> tuple[str, ...]:
    """The fields of a row that an import fills in."""
    return tuple(row.get(name, "").strip() for name in COLUMNS)


def filled_in(row: Row, there: Row) -> Row:
    """A row of an import, with what stands in the manifest where the import has nothing."""
    return {**row, **{name: value for name, value in there.items() if not row.get(name)}}


def _written(row: Row | list[str], columns: list[str], end: str) -> str:
    """A line of the manifest; of a list, its fields in their order."""
    fields = row if isinstance(row, list) else [row.get(name, "") for name in columns]
    line = io.StringIO()
    writer = csv.writer(line, lineterminator=end)
    if any("\r" in field for field in fields):  # which is quoted only where all is
        writer = csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow(fields)
    return line.getvalue()
