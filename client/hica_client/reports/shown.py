"""What people see of the reports: counts, and samples with the phrases that counted.

The page and the samples hold patients' reports: they stay with whoever may read those.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hica.printable import plain, printable
from hica.reports.sentences import MOST_CHARACTERS
from hica.reports.standing import Standing
from hica.reports.targets import State
from hica.seeds import derived_seed
from hica.storage import write_atomically
from hica_client.reports.reading import SiteReports

STYLES = {
    Standing.AFFIRMED: "bold green",
    Standing.UNCERTAIN: "bold yellow",
    Standing.DENIED: "strike red",
}
COLUMNS = {state.name.lower(): state.name.lower().replace("_", " ") for state in reversed(State)}


class Piece(NamedTuple):
    """A stretch of a report, and what was made of it."""

    text: str
    standing: Standing | None
    """None: nothing was made of it."""
    findings: tuple[str, ...]


def sample(reports: SiteReports, count: int) -> list[int]:
    """Rows of reports to show: of each finding in turn one that mentions, doubts or denies it.

    Seeded by the study, so that the same are shown again.
    """
    states = reports.targets.states
    rows = np.random.default_rng(derived_seed(reports.study.study.seed, "reports")).permutation(
        len(states)
    )
    turns = [
        [row for row in rows if states[row, column] == state]
        for state in (State.MENTIONED, State.UNCERTAIN, State.DENIED)
        for column in range(states.shape[1])
    ]
    chosen: dict[int, None] = {}
    while len(chosen) < count and any(turns):
        for turn in turns:
            if turn and len(chosen) < count:
                chosen.setdefault(int(turn.pop(0)))
    for row in rows:
        if len(chosen) < count:
            chosen.setdefault(int(row))
    return list(chosen)


def pieces(reports: SiteReports, row: int) -> list[Piece]:
    """A report as it stands, cut where the phrases begin and end that named a finding."""
    text = (reports.records[row].report or "")[:MOST_CHARACTERS]
    evidence = reports.targets.evidence[row]
    edges = sorted({0, len(text), *(edge for each in evidence for edge in each.span)})
    cut = []
    for start, end in pairwise(edges):
        over = [each for each in evidence if each.span.start <= start and end <= each.span.end]
        names = dict.fromkeys(reports.targets.findings[each.finding] for each in over)
        standing = over[0].standing if over else None
        cut.append(Piece(plain(text[start:end]), standing, tuple(names)))
    return cut


def show(reports: SiteReports, samples: int, console: Console) -> None:
    """Print counts and samples."""
    counts = reports.counts()
    console.print(Text(f"{counts['reports']} of {counts['images']} images have a report"))
    for line in notes(reports):
        console.print(Text(line))
    table = Table(title_justify="left")
    table.add_column("finding", overflow="fold")
    for words in COLUMNS.values():
        table.add_column(words, justify="right")
    for name, row in counts["findings"].items():
        table.add_row(printable(name), *(str(row[state]) for state in COLUMNS))
    console.print(table)
    for row in sample(reports, samples):
        console.print()
        report = Text()
        named: dict[str, None] = {}
        for piece in pieces(reports, row):
            report.append(piece.text, STYLES[piece.standing] if piece.standing else "")
            named |= {f"{name}: {piece.standing}": None for name in piece.findings}
        console.print(report)
        console.print(Text(plain("; ".join(named) or "no finding"), style="dim"))


def notes(reports: SiteReports) -> Iterator[str]:
    """What must be known of the counts."""
    counts = reports.counts()
    for why, number in counts["left_out"].items():
        yield f"{number} reports are left out: {why}"
    if counts["cut"]:
        yield (
            f"{counts['cut']} reports are longer than {MOST_CHARACTERS:,} characters: their ends "
            "are not read"
        )
    yield f"{counts['all_normal']} reports call the whole image normal"


def write_page(path: Path, reports: SiteReports, rows: Sequence[int]) -> None:
    """Write counts and samples as a page that only the owner of the file can read.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        counts=reports.counts(),
        notes=list(notes(reports)),
        columns=COLUMNS,
        samples=[
            {"image": plain(reports.records[row].name), "pieces": pieces(reports, row)}
            for row in rows
        ],
    )
    write_atomically(path, page.encode(), mode=0o600)
