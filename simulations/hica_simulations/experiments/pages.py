"""How results are written: rows as CSV, tables as Markdown, reports of one file for a browser."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from hica.method.intervals import Interval
from hica.storage import write_atomically

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid #d8dee4; padding: .25rem .75rem; text-align: left }}
</style></head><body>
<h1>{title}</h1>
<img alt="the table as a picture" src="data:image/png;base64,{picture}">
<table><thead><tr>{header}</tr></thead><tbody>
{rows}</tbody></table>
<p>{note}</p>
</body></html>
"""


class Table(NamedTuple):
    """A table's header and lines, cell by cell."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]


def markdown(table: Table, rule: str = " --- ") -> str:
    """A table in Markdown; `rule` is what each column has below its title."""
    header, *lines = ("| " + " | ".join(row) + " |" for row in (table.header, *table.lines))
    return "\n".join([header, f"|{rule}" * len(table.header) + "|", *lines, ""])


def points(interval: Interval | None, value: bool = True) -> str:
    """An interval of shares in points, as `+1.2 [-0.3, +2.7]`, or without its `value`."""
    if interval is None:
        return "–"
    spread = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.value:+.1f} {spread}" if value else spread


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


def write_page(path: Path, title: str, table: Table, picture: Path, note: str) -> None:
    """Write a report of one file, which needs no network: the picture, the table, the note.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    drawn = base64.b64encode(picture.read_bytes()).decode()
    header, *lines = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for tag, row in [("th", table.header), *(("td", line) for line in table.lines)]
    )
    rows = "".join(f"<tr>{line}</tr>\n" for line in lines)
    words = {"title": escape(title), "note": escape(note)}
    page = PAGE.format(picture=drawn, header=header, rows=rows, **words)
    write_atomically(path, page.encode())
