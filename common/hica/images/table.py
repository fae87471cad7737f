"""table: the rows of a CSV as spreadsheets save it, each with the lines that it stands on."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hica.errors import DataError
from hica.images.columns import COLUMNS, has_image, read_columns
from hica.storage import read_file

ONE_LINE = ("image", "label", "patient_id", "split", "mask", "dup_group")
"""Columns in which a line break is a quote that nobody closed."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
WORKBOOKS = {b"PK\x03\x04": "a workbook (.xlsx or .ods)", b"\xd0\xcf\x11\xe0": "a workbook (.xls)"}
"""What a file that is no text begins with."""
SAVE = "open it in the spreadsheet program and save it as CSV UTF-8"


class Row(NamedTuple):
    """A row, and the lines `start` to `end` (without it) of the file, counted from 0."""

    start: int
    end: int
    fields: dict[str, str]
    """By column, stripped."""

    @property
    def line(self) -> int:
        """The row's last line as people count, which spreadsheets show."""
        return self.end


class RowProblem(NamedTuple):
    """What is wrong with a row."""

    line: int
    cause: str
    problem: DataError


@dataclass
class Table:
    """A CSV file that was read."""

    text: str
    """All of it, with a byte order mark where it has one."""
    encoding: str
    names: list[str] = field(default_factory=list)
    """The columns; see `Columns`."""
    rows: list[Row] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)
    """Rows that cannot be used; they are not among `rows`."""
    notes: list[str] = field(default_factory=list)
    """What was passed over, or taken for something else."""
    short: list[int] = field(default_factory=list)
    """Lines of rows that have fewer fields than there are columns."""
    nameless: set[int] = field(default_factory=set)
    """Columns, from 1 on, that have no name but a value somewhere."""


def read_table(path: Path) -> Table:
    """Read a CSV file in UTF-8 or UTF-16, separated by commas, semicolons or tabs.

    Raises:
        DataError: The file as a whole cannot be read; names the line and the remedy.
    """
    text, encoding = _text(path)
    hint = re.match(r"\ufeff?sep=(.)\r?\n", text)  # Excel's own line
    lines = text.removeprefix("\ufeff")
    delimiter = hint[1] if hint else _delimiter(lines)
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter, strict=True)
    table = Table(text, encoding)
    end = 0
    try:
        for start, end, fields in _numbered(reader):
            if (hint and start == 0) or not any(each.strip() for each in fields):
                continue
            if not table.names:
                table.names, table.notes = read_columns(path, end, fields)
            else:
                _take(path, table, start, end, fields)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {end + 1}: not valid CSV: {error}; in this row a double quote is not "
            "closed, or stands inside a field, where it must be written twice"
        ) from None
    if not table.names:
        read_columns(path, 1, [])
    if delimiter != ",":
        table.notes.append(
            f"{path}: read as separated by {DELIMITERS.get(delimiter, repr(delimiter))}"
        )
    _note_lengths(path, table)
    return table


def _numbered(reader: Any) -> Iterator[tuple[int, int, list[str]]]:
    """Every row with the lines it stands on."""
    while True:
        start = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        yield start, reader.line_num, fields


def _take(path: Path, table: Table, start: int, end: int, fields: list[str]) -> None:
    """Add the row of lines `start` to `end` to the table, or what is wrong with it."""
    names = table.names
    given = dict.fromkeys((*COLUMNS, *names), "") | dict(
        zip(names, map(str.strip, fields), strict=False)
    )
    broken = [name for name in ONE_LINE if {"\n", "\r"} & set(given[name])]
    words = ""
    if any(each.strip() for each in fields[len(names) :]):  # empty ones are left by spreadsheets
        cause = f"{len(fields)} fields for {len(names)} columns"
        words = f"{cause}; put fields that hold the separator in double quotes"
    elif not given["image"]:
        cause = "column image: empty"
        words = f"{cause}; name a file or take the row out"
    elif broken:
        cause = f"column {broken[0]}: a line break"
        words = (
            f"{cause} in {given[broken[0]][:40]!r}; a double quote is opened on line {start + 1} "
            "and not closed there"
        )
    if words:
        problem = DataError(f"{path}: line {end}: {words}")
        table.problems.append(RowProblem(end, cause, problem))
        return
    table.rows.append(Row(start, end, given))
    if len(fields) < len(names):
        table.short.append(end)
    pairs = enumerate(zip(names, fields, strict=False), 1)
    table.nameless |= {number for number, (name, each) in pairs if not name and each.strip()}


def _note_lengths(path: Path, table: Table) -> None:
    """Say of rows with fewer fields than columns, and of values without a column's name."""
    if table.short:
        table.notes.append(
            f"{path}: {len(table.short):,} rows have fewer fields than there are columns, the "
            f"first is line {table.short[0]}: what is missing is taken for empty"
        )
    if table.nameless:
        numbers = ", ".join(map(str, sorted(table.nameless)))
        table.notes.append(f"{path}: column {numbers} has values but no name, and is not read")


def _text(path: Path) -> tuple[str, str]:
    """The text of a file, with its byte order mark, and its encoding."""
    try:
        data = read_file(path)
    except OSError as error:
        raise DataError(
            f"{path}: manifest cannot be read: {error.strerror}; name a CSV file in data.manifest "
            "of the site file"
        ) from None
    for start, what in WORKBOOKS.items():
        if data.startswith(start):
            raise DataError(f"{path}: is {what} under the name of a CSV file; {SAVE}")
    encoding = "utf-8"
    if data[:2] == b"\xff\xfe" or (data[1:2] == b"\0" and data[:1] != b"\0"):
        encoding = "utf-16-le"
    elif data[:2] == b"\xfe\xff" or (data[:1] == b"\0" and data[1:2] != b"\0"):
        encoding = "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8" else "UTF-16, as which it begins"
        raise DataError(f"{path}: not {name} ({error}); save the file as CSV UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path}: line {line}: holds zero bytes, so it is no text; {SAVE}")
    return text, encoding


def _delimiter(text: str) -> str:
    """What separates the fields of the first line: the first of `DELIMITERS` that gives `image`."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in DELIMITERS:
        if has_image(first.split(delimiter)):
            return delimiter
    return ","
