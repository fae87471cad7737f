"""Accuracy against ε: what differential privacy costs, by mechanism, shots and study.

ε = ∞ is the same mechanism at ε = 100,000, whose noise is too small to matter: clipping, a single
centre and missing intercepts are in it. `none` is the study's own recipe without any of that.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hica.method.intervals import paired_interval
from hica.storage import write_atomically
from hica.study import Changes, merged
from hica_simulations.experiments.pages import Table, markdown, write_csv, write_page
from hica_simulations.experiments.tables.cells import Cell, Row
from hica_simulations.scenario import load_scenario

BUDGETS = (math.inf, 8.0, 3.0, 1.0)
NO_NOISE = 1e5
"""ε in the place of ∞."""
DELTA = 1e-3
"""Well below one over the 120 to 240 shots that a federation of four sites learns from."""
EVERYWHERE = {
    "model": {"train": "adapter", "layers": 0},
    "alignment": {"scaling": "none", "centring": "global"},
    "pretraining": {"rounds": 0},
}
"""Features of the frozen tower: with few patients nothing more can be learnt privately."""
PROTOTYPES = {
    "privacy": {"mechanism": "prototypes"},
    "alignment": {"bank_start": "means"},
    "calibration": {"rounds": 0},
}
SECURE_SUM = {
    "privacy": {"secure_aggregation": True, "noise": "distributed"},
    "federation": {"quorum": 3},
}
METHODS: dict[str, Changes] = {
    "none": {},
    "dp-sgd": {
        "privacy": {"mechanism": "dp-sgd", "training_share": 0.5},
        "calibration": {"rounds": 0},
        # Every patient in every step.
        "alignment": {"bank_start": "means", "rounds": 4, "batch_size": 1000},
        "federation": {"quorum": 3},
    },
    "prototypes": PROTOTYPES,
    "prototypes in a secure sum": merged(PROTOTYPES, SECURE_SUM),
}
COLOURS = {
    "none": "#1c2733",
    "dp-sgd": "#d55e00",
    "prototypes": "#0072b2",
    "prototypes in a secure sum": "#009e73",
}
SHOWN = {"balanced_accuracy": "balanced accuracy, %", "auroc": "AUROC, %"}


def cells(
    studies: Sequence[Path],
    shots: Sequence[int],
    seeds: Sequence[int],
    methods: Sequence[str] = (),
) -> list[Cell]:
    """All runs of the table; those that share their texts follow each other."""
    return [
        _cell(study, method, count, budget, seed)
        for study in studies
        for seed in seeds
        for count in shots
        for method in METHODS
        if not methods or method in methods
        for budget in ([math.inf] if method == "none" else BUDGETS)
    ]


def _cell(study: Path, method: str, shots: int, budget: float, seed: int) -> Cell:
    spent = {} if method == "none" else {"epsilon": min(budget, NO_NOISE), "delta": DELTA}
    labels = {"study": load_scenario(study).study.study.name, "method": method, "shots": shots}
    labels |= {"epsilon": budget, "seed": seed}
    drawn = {"alignment": {"shots": shots}, "study": {"seed": seed}, "privacy": spent}
    return Cell(labels, study, merged(EVERYWHERE, METHODS[method], drawn))


def write(rows: Sequence[Row], out: Path) -> str:
    """Write `table.csv`, `.md` and `.png`, and all in `report.html`; returns the Markdown."""
    write_csv(rows, out / "table.csv")
    text = as_markdown(rows)
    write_atomically(out / "table.md", text.encode())
    plot(rows, out / "table.png")
    title = "Accuracy against ε"
    write_page(out / "report.html", title, as_table(rows), out / "table.png", note_of(rows))
    return text


def as_markdown(rows: Sequence[Row]) -> str:
    """`as_table` and `note_of`, and what could not be run."""
    failed = [f"- {row['error']}\n" for row in rows if row["error"]]
    reasons = "\nCells that could not be run:\n\n" + "".join(failed) if failed else ""
    return f"{markdown(as_table(rows))}\n{note_of(rows)}\n{reasons}"


def note_of(rows: Sequence[Row]) -> str:
    """What the numbers are."""
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    return (
        f"δ = {DELTA:g}, seeds {seeds}; means over the seeds, paired 95 % t-intervals of the "
        "differences, in points."
    )


def as_table(rows: Sequence[Row]) -> Table:
    """Means over the seeds, and paired differences from the same mechanism at ε = ∞."""
    lines = []
    groups = dict.fromkeys((r["study"], r["shots"], r["method"], r["epsilon"]) for r in rows)
    for study, shots, method, budget in groups:
        line = [study, str(shots), method, "∞" if math.isinf(budget) else f"{budget:g}"]
        for metric in SHOWN:
            ours = _values(rows, metric, study, shots, method, budget)
            free = _values(rows, metric, study, shots, method, math.inf)
            line.append(f"{100 * float(np.mean(ours)):.1f}" if ours else "–")
            line.append(_difference(ours, free) if math.isfinite(budget) else "–")
        lines.append(line)
    header = ["study", "shots", "mechanism", "ε"]
    for words in SHOWN.values():
        header += [words, "change from ε = ∞"]
    return Table(header, lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """AUROC against ε: a row of panels a study, a column a number of shots."""
    studies = list(dict.fromkeys(row["study"] for row in rows))
    shots = sorted({row["shots"] for row in rows})
    figure = Figure(figsize=(3.2 * len(shots) + 1.8, 2.8 * len(studies)), layout="constrained")
    panels = figure.subplots(len(studies), len(shots), sharex=True, sharey="row", squeeze=False)
    for study, line in zip(studies, panels, strict=True):
        for count, axes in zip(shots, line, strict=True):
            _panel(axes, rows, study, count)
            axes.set_title(f"{study}, {count} shot{'s' if count > 1 else ''}", fontsize=9)
        line[0].set_ylabel(SHOWN["auroc"])
    for axes in panels[-1]:
        axes.set_xlabel("ε of each site")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, rows: Sequence[Row], study: str, shots: int) -> None:
    """Mean and range over the seeds of every mechanism."""
    places = {budget: place for place, budget in enumerate(sorted(BUDGETS))}
    for method, colour in COLOURS.items():
        every = {b: _values(rows, "auroc", study, shots, method, b) for b in places}
        found = {places[b]: 100 * np.array(values) for b, values in every.items() if values}
        means = [values.mean() for values in found.values()]
        if found and method == "none":  # at ε = ∞ alone
            axes.axhline(means[-1], color=colour, linestyle="--", label="no privacy")
        elif found:
            axes.plot([*found], means, color=colour, marker="o", label=method)
            low, high = ([of(v) for v in found.values()] for of in (np.min, np.max))
            axes.fill_between([*found], low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(50, color="#b4bdc6", linewidth=0.8)
    axes.set_xticks(list(places.values()), ["∞" if math.isinf(b) else f"{b:g}" for b in places])
    axes.grid(color="#edf0f3")
    axes.spines[["top", "right"]].set_visible(False)


def _values(
    rows: Sequence[Row], metric: str, study: str, shots: int, method: str, budget: float
) -> list[float]:
    """A metric of every seed, in the order of the rows, without cells that could not be run."""
    names, wanted = ("study", "shots", "method", "epsilon"), [study, shots, method, budget]
    here = (row[metric] for row in rows if [row[name] for name in names] == wanted)
    return [value for value in here if value is not None]


def _difference(ours: Sequence[float], free: Sequence[float]) -> str:
    """Mean of `ours` less `free`, in points, with its interval over the seeds."""
    if len(ours) != len(free) or len(ours) < 2:
        return "–"
    found = paired_interval([100 * (one - other) for one, other in zip(ours, free, strict=True)])
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
