"""A table of labels (CSV): which of its rows is meant by which picture.

Its keys are turned into handles as they are read; nothing of them is kept or printed, only lines.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hica.errors import DataError
from hica.images.manifest import SPLITS
from hica.printable import listed
from hica.storage import read_file
from hica_client.intake.keys import as_spelt, handle_of, loose_handle
from hica_client.intake.pseudonyms import Pseudonyms
from hica_client.intake.register import PICTURE, Register

KEYS = {
    "path": ("file", "path", "image", "filename", "filepath", "imagefile"),
    "instance": ("sopinstanceuid", "instanceuid"),
    "series": ("seriesinstanceuid", "seriesuid"),
    "study": ("studyinstanceuid", "studyuid"),
    "accession": ("accessionnumber", "accession", "accessionno"),
    "bare": ("patientid", "patient", "pid", "mrn"),
}
"""What a column may be called that says which pictures are meant, without spaces and signs; where a
row has several keys, the first of this list counts."""
VALUES = {
    "label": ("label", "class", "diagnosis"),
    "findings": ("findings", "finding"),
    "split": ("split",),
    "report": ("report", "text"),
}
SHOWN = 5
"""Lines that are named of each kind of trouble."""


@dataclass(frozen=True)
class Told:
    """What a row of the table says of its pictures."""

    label: str = ""
    findings: str = ""
    split: str = ""
    report: str = ""


@dataclass
class LabelFile:
    """A table of labels, and what came of each of its lines."""

    rows: int = 0
    unknown: list[int] = field(default_factory=list)
    """Lines whose key no picture of this import has."""
    conflicts: list[int] = field(default_factory=list)
    """Lines that say something else of a picture than another line does: none of them counts."""
    ambiguous: list[int] = field(default_factory=list)
    """Lines that name a file that lies in several folders."""
    without_key: list[int] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What of it has come to nothing, in words."""
        said = []
        if self.unknown:
            said.append(
                f"{_lines(self.unknown)} of the labels: no picture of this import has this key. Is "
                "it another export? Did a spreadsheet take zeros away that a key began with? Are "
                "capitals or accents written otherwise?"
            )
        if self.conflicts:
            said.append(
                f"{_lines(self.conflicts)} of the labels contradict each other: their pictures "
                "have no label; leave one line for each key"
            )
        if self.ambiguous:
            said.append(
                f"{_lines(self.ambiguous)} of the labels: a file of this name lies in several "
                "folders, and none is labelled: write its path below the folder that is imported"
            )
        if self.without_key:
            said.append(f"{_lines(self.without_key)} of the labels: the key is empty; fill it in")
        return said


def read_labels(path: Path, register: Register, pseudonyms: Pseudonyms) -> LabelFile:
    """Read a table of labels into the register's temporary tables `told` and `asked_for`.

    `asked_for` are the pictures that are named by themselves: such a slice of a volume is taken in
    place of the middle one.

    Raises:
        DataError: It cannot be read, or lacks a key or a label.
    """
    found = LabelFile()
    register.many("DELETE FROM told", [()])
    for line, keys, told in _rows(path):
        found.rows += 1
        kind = next((kind for kind in KEYS if keys.get(kind)), None)
        if kind is None:
            found.without_key.append(line)
            continue
        handle = handle_of(pseudonyms, kind, keys[kind])
        for each in ("path", "name") if kind == "path" else (kind,):
            meant = handle
            if kind == "path":
                meant = as_spelt(register, each, handle, loose_handle(pseudonyms, keys[kind]))
            values = (each, meant, line, told.label, told.findings, told.split, told.report)
            register.change("INSERT INTO told VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
    for kind in ("path", "name", "instance"):
        register.change(
            f"INSERT OR IGNORE INTO asked_for SELECT key FROM sources JOIN told ON told.kind = ? "
            f"AND told.handle = sources.{kind} WHERE run = ?",
            *(kind, register.run),
        )
    found.ambiguous = _several(register)
    register.many("DELETE FROM told WHERE kind = 'name' AND line = ?", zip(found.ambiguous))
    register.commit()
    found.unknown = _unknown(register, {*found.ambiguous})
    return found


def prepare(register: Register) -> None:
    """Make the temporary tables, which are in memory or in a file that the system deletes."""
    register.change("CREATE TEMP TABLE told (kind, handle, line, label, findings, split, report)")
    register.change("CREATE INDEX temp.of_handle ON told (kind, handle)")
    register.change("CREATE TEMP TABLE asked_for (key PRIMARY KEY)")
    register.change(
        "CREATE TEMP TABLE spelt (kind, loose, handle, PRIMARY KEY (kind, loose, handle))"
    )


def told_of(register: Register, key: str, found: LabelFile) -> Told:
    """What the table says of a source, by the narrowest key that has a row for it."""
    for kind in ("path", "name", *list(KEYS)[1:]):
        rows = list(
            register.rows(
                "SELECT line, told.label, told.findings, told.split, told.report FROM sources JOIN "
                f"told ON told.kind = ? AND told.handle = sources.{kind} "
                f"WHERE key = ? AND sources.{kind} != '' ORDER BY line",
                *(kind, key),
            )
        )
        if rows:
            return _agreed(rows, found)
    return Told()


def _agreed(rows: list[tuple[int, str, str, str, str]], found: LabelFile) -> Told:
    """What some lines say together of one picture: one label, all reports."""
    values: dict[str, str] = {}
    for name, column in (("label", 1), ("findings", 2), ("split", 3)):
        said = {str(row[column]) for row in rows} - {""}
        if len(said) > 1:
            found.conflicts += [row[0] for row in rows if row[0] not in found.conflicts]
            return Told()
        values[name] = next(iter(said), "")
    reports = dict.fromkeys(str(row[4]) for row in rows if row[4])
    return Told(**values, report=" ".join(reports))


def _several(register: Register) -> list[int]:
    """Lines that name a file without its folder, where several folders have one of this name.

    Where a file lies just there, it alone is meant.
    """
    register.change(
        "DELETE FROM told WHERE kind = 'name' AND line IN (SELECT line FROM sources JOIN told ON "
        "told.kind = 'path' AND told.handle = sources.path WHERE run = ?)",
        register.run,
    )
    lines = register.rows(
        "SELECT line FROM sources JOIN told ON told.kind = 'name' AND told.handle = sources.name "
        f"WHERE run = ? AND {PICTURE} GROUP BY line HAVING count(*) > 1 ORDER BY line",
        register.run,
    )
    return [line for (line,) in lines]


def _unknown(register: Register, besides: set[int]) -> list[int]:
    """Lines by which no picture of this import is meant."""
    meant = besides
    for kind in ("path", "name", *list(KEYS)[1:]):
        lines = register.rows(
            f"SELECT DISTINCT line FROM sources JOIN told ON told.kind = ? AND told.handle = "
            f"sources.{kind} WHERE run = ?",
            *(kind, register.run),
        )
        meant |= {line for (line,) in lines}
    told = register.rows("SELECT DISTINCT line FROM told ORDER BY line")
    return [line for (line,) in told if line not in meant]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str], Told]]:
    """Line, keys by their kind and the rest, of every row that is not empty."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: labels cannot be read: {error.strerror}; name a CSV file in --labels"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the file as CSV UTF-8") from None
    first = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True
    )
    try:
        header = next(reader, [])
        columns = _columns(path, header)
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if any(field.strip() for field in fields[len(header) :]):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(fields)} fields for {len(header)} "
                    "columns; put fields that hold a comma in double quotes"
                )
            given = dict(zip(columns, (field.strip() for field in fields), strict=False))
            if (split := given.get("split", "")) and split not in SPLITS:
                raise DataError(
                    f"{path}: line {reader.line_num}: column split: is not one of "
                    f"{', '.join(SPLITS)}; leave it empty to have the split drawn"
                )
            told = Told(**{name: " ".join(given.get(name, "").split()) for name in VALUES})
            yield reader.line_num, {kind: given.get(kind, "") for kind in KEYS}, told
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not valid CSV: {error}") from None


def _columns(path: Path, header: list[str]) -> list[str]:
    """What each column holds: a kind of key, a value, or nothing that is used."""
    known = {
        word: name for table in (KEYS, VALUES) for name, words in table.items() for word in words
    }
    columns = [known.get("".join(filter(str.isalnum, name.casefold())), "") for name in header]
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        both = [name for name, column in zip(header, columns, strict=True) if column in twice]
        raise DataError(f"{path}: line 1: columns {listed(both)} mean the same; keep one of them")
    if not any(kind in columns for kind in KEYS):
        raise DataError(
            f"{path}: line 1: no column says which picture is meant; name one file, PatientID, "
            "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID or AccessionNumber"
        )
    if not any(name in columns for name in VALUES):
        raise DataError(
            f"{path}: line 1: no column `label`; columns found: {', '.join(header)}: name the "
            "column that holds the labels `label`"
        )
    return columns


def _lines(lines: list[int]) -> str:
    """`3 lines (2, 3, 9)`."""
    shown = ", ".join(map(str, sorted(lines)[:SHOWN])) + (", …" if len(lines) > SHOWN else "")
    return f"{len(lines)} line{'s' * (len(lines) > 1)} ({shown})"
