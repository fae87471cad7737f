"""Main table: our method beside every baseline, over studies and shots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hica.storage import write_atomically
from hica_simulations.experiments.baselines.registry import NAMES
from hica_simulations.experiments.baselines.shots import runnable
from hica_simulations.experiments.pages import Table, markdown
from hica_simulations.experiments.tables.cells import LOCAL, OURS, POOLED, Row
from hica_simulations.experiments.tables.comparison import (
    METRICS,
    Comparison,
    Variant,
    difference,
    rows_of,
)
from hica_simulations.experiments.titles import TITLES
from hica_simulations.scenario import Scenario

PROBE = "linear_probe"
SHOWN = {"accuracy": "accuracy", "auroc": "AUROC"}
SLOW = ("clip_lora",)
"""Runs the whole tower in every step."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Our method, alone and pooled, and the baselines; a name is what `--methods` takes."""
    names = (OURS, LOCAL, POOLED, *runnable(scenario.study, NAMES))
    return {name: Variant(method=name) for name in names}


TABLE = Comparison(
    title="Methods over shots",
    reference=OURS,
    variants=variants,
    metrics={**METRICS, "ece": "ECE", "worst_auroc": "worst site's AUROC"},
    rarely=frozenset({LOCAL, POOLED, *SLOW}),
)
cells = TABLE.cells


def write(rows: Sequence[Row], out: Path) -> str:
    """Write the files of a comparison; returns a Markdown that fits on a page.

    Methods by shots for every study and metric, then ours less the linear probe and less whichever
    baseline is best there.
    """
    TABLE.write(rows, out)
    parts = []
    for study in dict.fromkeys(row["study"] for row in rows):
        here = [row for row in rows if row["study"] == study]
        for metric, words in SHOWN.items():
            parts.append(f"**{study}, {words}**\n\n{markdown(_by_shots(here, metric))}")
        parts.append(f"**{study}, {OURS} less …**\n\n{markdown(_differences(here, out))}")
    text = "\n".join([*parts, TABLE.note_of(rows)]) + "\n"
    write_atomically(out / "table.md", text.encode())
    return text


def _by_shots(rows: Sequence[Row], metric: str) -> Table:
    """A line a method, a column a number of shots."""
    shots = sorted({row["shots"] for row in rows})
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        means = [_mean(rows, metric, method, count) for count in shots]
        lines.append([TITLES[method], *("–" if v is None else f"{100 * v:.1f}" for v in means)])
    return Table(["shots", *map(str, shots)], lines)


def _differences(rows: Sequence[Row], out: Path) -> Table:
    """Ours less the linear probe and less the best baseline, by shots."""
    study, lines = rows[0]["study"], []
    for count in sorted({row["shots"] for row in rows}):
        ours = rows_of(rows, study, count, OURS)
        for metric, words in SHOWN.items():
            best = _best(rows, metric, count)
            theirs = (rows_of(rows, study, count, name) for name in (PROBE, best))
            probe, other = (difference(ours, each, metric, out) for each in theirs)
            lines.append([str(count), words, *probe, TITLES[best], *other])
    header = ["shots", "metric", "linear probe, over seeds", "over patients"]
    return Table([*header, "best baseline", "over seeds", "over patients"], lines)


def _best(rows: Sequence[Row], metric: str, shots: int) -> str:
    """The baseline that is best on average: chosen on the very images that it is tested on."""
    means = {name: _mean(rows, metric, name, shots) for name in {row["method"] for row in rows}}
    found = {name: mean for name, mean in means.items() if mean is not None and name in NAMES}
    return max(found, key=lambda name: found[name], default=PROBE)


def _mean(rows: Sequence[Row], metric: str, method: str, shots: int) -> float | None:
    """Over the seeds; None where nothing was run."""
    here = [row for row in rows if (row["method"], row["shots"]) == (method, shots)]
    values = [float(row[metric]) for row in here if row[metric] is not None]
    return sum(values) / len(values) if values else None
