"""Pictures of tables: a metric over shots, or what each variant changes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hica_simulations.experiments.tables.cells import Row
from hica_simulations.experiments.tables.statistics import seeds_interval

COLOURS: list[Any] = [*matplotlib.color_sequences["tab10"], *matplotlib.color_sequences["Dark2"]]
DISTINCT = 10
"""The first so many colours cannot be taken for one another; later lines are dashed."""
GREY = "#b4bdc6"
METRIC = "auroc"
WORDS = "AUROC, %"


def shots_plot(rows: Sequence[Row], path: Path) -> None:
    """Mean AUROC over the seeds against shots: a panel a study, a line a method."""
    studies, methods = _distinct(rows, "study"), _distinct(rows, "method")
    figure = Figure(figsize=(3.2 * len(studies) + 1.8, 3.4), layout="constrained")
    panels = figure.subplots(1, len(studies), squeeze=False)[0]
    for axes, study in zip(panels, studies, strict=True):
        for number, method in enumerate(methods):
            here = [r for r in rows if (r["study"], r["method"]) == (study, method)]
            here = [row for row in here if row[METRIC] is not None]
            counts = sorted({row["shots"] for row in here})
            means = [100 * np.mean([r[METRIC] for r in here if r["shots"] == n]) for n in counts]
            first = number == 0  # the table's own method stands out
            axes.plot(
                counts,
                means,
                color=COLOURS[number % len(COLOURS)],
                linestyle="-" if number < DISTINCT else "--",
                marker="o",
                markersize=4 if first else 2.5,
                linewidth=2.4 if first else 1.0,
                label=method,
                zorder=3 if first else 2,
            )
        shots = sorted({row["shots"] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(shots, [str(n) for n in shots], fontsize=7)  # 16 and 20 lie close
        axes.minorticks_off()
        axes.set_title(study, fontsize=9)
        axes.set_xlabel("shots a class and site")
        _plain(axes)
    panels[0].set_ylabel(WORDS)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=7)
    figure.savefig(path, dpi=110)


def differences_plot(
    rows: Sequence[Row],
    reference: str,
    path: Path,
    metrics: Mapping[str, str],
    against: Mapping[str, str] | None = None,
) -> None:
    """Metrics less those of the reference with their intervals over the seeds.

    A row of panels a study, and in it a panel a metric, by its title. All rows have the same number
    of shots; `against` names methods that are compared with another one.
    """
    others = against or {}
    studies = _distinct(rows, "study")
    methods = [name for name in _distinct(rows, "method") if name != reference]
    height = max(0.5 + 0.24 * len(methods), 1.5)
    size = (2.9 * len(metrics) + 2.4, height * len(studies) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(studies), len(metrics), squeeze=False, sharex="col")
    for line, study in zip(grid, studies, strict=True):
        for axes, (metric, title) in zip(line, metrics.items(), strict=True):
            for place, method in enumerate(methods):
                other = others.get(method, reference)
                found = seeds_interval(*_values(rows, study, method, other, metric))
                if found is not None:
                    low, high = 100 * found.low, 100 * found.high
                    axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.2)
                    axes.plot(100 * found.value, place, "o", color=COLOURS[0], markersize=4)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_yticks(range(len(methods)), methods if axes is line[0] else [], fontsize=7)
            axes.set_ylim(max(len(methods), 1) - 0.5, -0.5)
            axes.tick_params(axis="x", labelsize=7)
            axes.set_title(f"{study}: {title}", fontsize=8)
            _plain(axes)
    what = "the line it is compared with" if others else reference
    figure.supxlabel(f"points more than {what}", fontsize=7)
    figure.savefig(path, dpi=110)


def _values(
    rows: Sequence[Row], study: str, method: str, other: str, metric: str
) -> tuple[list[float], list[float]]:
    """A metric of two methods, in the seeds in which both have a value."""
    known = [row for row in rows if row["study"] == study and row[metric] is not None]
    ours, theirs = (
        {row["seed"]: row[metric] for row in known if row["method"] == name}
        for name in (method, other)
    )
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _distinct(rows: Sequence[Row], label: str) -> list[Any]:
    return list(dict.fromkeys(row[label] for row in rows))


def _plain(axes: Axes) -> None:
    axes.grid(color="#edf0f3")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
