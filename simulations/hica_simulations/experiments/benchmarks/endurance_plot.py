"""The picture of an endurance run: memory of each kind of process, and the database, by round."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hica_simulations.experiments.benchmarks.processes import KINDS, megabytes
from hica_simulations.experiments.benchmarks.samples import Sample

COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b4c9a", "#8a8a00"]
"""Okabe and Ito's colours and two more, which colour-blind readers can tell apart."""

TICKS = [50, 100, 200, 400, 800]
"""MB."""


def plot(samples: Sequence[Sample], settled: int, path: Path) -> None:
    """Write the picture of a whole run as PNG; the round `settled` is marked."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    memory, database = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    running = [sample for sample in samples if sample.round > 0]
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        _memory_line(memory, running, kind, colour)
    memory.set(yscale="log", ylabel="memory of a process, MB")
    memory.set_yticks(TICKS, labels=map(str, TICKS))
    memory.minorticks_off()
    memory.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    rounds = [sample.round for sample in running]
    database.plot(rounds, [megabytes(sample.database) for sample in running], color="#1c2733")
    database.set(ylabel="database, MB", xlabel="alignment round", ylim=(0, None))
    for axes in (memory, database):
        axes.axvline(settled, color="#b4bdc6", linewidth=0.8, linestyle="--")
        axes.grid(color="#edf0f3")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _memory_line(axes: Axes, samples: Sequence[Sample], kind: str, colour: str) -> None:
    """Mean resident memory of the processes of a kind; the band spans all of them."""
    rounds, sizes = [], []
    for sample in samples:
        if found := [megabytes(p.resident) for p in sample.processes if p.kind == kind]:
            rounds.append(sample.round)
            sizes.append(found)
    if rounds:
        axes.plot(rounds, list(map(mean, sizes)), color=colour, label=kind)
        lowest, highest = list(map(min, sizes)), list(map(max, sizes))
        axes.fill_between(rounds, lowest, highest, color=colour, alpha=0.2, linewidth=0)
