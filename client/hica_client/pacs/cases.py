"""A list of patients or studies to take, from a CSV file."""

import csv
from pathlib import Path

from hica.errors import DataError
from hica.storage import read_file
from hica_client.pacs.selection import Case

COLUMNS = {
    "patient_id": "patient_id",
    "patientid": "patient_id",
    "accession_number": "accession_number",
    "accessionnumber": "accession_number",
}
"""Heading, in small letters and without blanks → what it is."""
_SPECIAL = "*?\\"
"""What a PACS takes for "any", or for several values."""


def read_cases(path: Path) -> tuple[Case, ...]:
    """The cases of a CSV with a column `patient_id`, `accession_number`, or both.

    Columns are parted by commas, semicolons or tabs; other columns are passed over. Lines are named
    by number, never by what is in them.

    Raises:
        DataError: The file cannot be read, has neither column, or a value that would match others.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; name a CSV file that this user may read"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save it anew as CSV UTF-8") from None
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        lines = list(csv.reader(text.splitlines(), delimiter=separator))
    except csv.Error:
        raise DataError(f"{path}: not a CSV file; save it anew as CSV UTF-8") from None
    heading = lines[0] if lines else []
    names = [COLUMNS.get(cell.strip().lower().replace(" ", "")) for cell in heading]
    if not any(names):
        raise DataError(
            f"{path}: the first line names neither column patient_id nor accession_number; write "
            "one of them above the list"
        )
    cases: dict[object, Case] = {}
    for number, line in enumerate(lines[1:], start=2):
        values = {
            name: cell.strip() for name, cell in zip(names, line, strict=False) if name and cell
        }
        if any(sign in value for value in values.values() for sign in _SPECIAL):
            raise DataError(
                f"{path}: line {number}: a value with * ? or \\ would match other patients; "
                "write it out"
            )
        if any(values.values()):
            cases.setdefault(tuple(sorted(values.items())), Case(number, **values))
    if not cases:
        raise DataError(f"{path}: no cases below the heading; write one a line")
    return tuple(cases.values())
