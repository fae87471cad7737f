"""Rows of results as a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hica.storage import write_atomically


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows; a column that a row does not have is empty there.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
