"""Comparison: the form that most tables have, variants of a study against one of them.

Every variant of a seed sees the same shots and the same test images. Seeds draw shots and splits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import NO_CHANGES, Changes, merged
from hica_simulations.experiments.pages import Table, markdown, points, write_csv, write_page
from hica_simulations.experiments.tables.cells import OURS, Cell, Measure, Row, predictions_of
from hica_simulations.experiments.tables.plots import differences_plot, shots_plot
from hica_simulations.experiments.tables.statistics import patients_interval, seeds_interval
from hica_simulations.predictions import Predictions
from hica_simulations.scenario import Scenario, load_scenario

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "auroc": "AUROC"}
"""What most tables show, with its titles."""


class Variant(NamedTuple):
    """What one line of a table runs: settings of the scenario, and a method as `Cell` has it."""

    changes: Changes = NO_CHANGES
    method: str = OURS


class Figure(NamedTuple):
    """How a number that is no share is shown: below a title, times `scale`, with some digits."""

    title: str
    scale: float = 1.0
    digits: int = 0


Variants = Callable[[Scenario], Mapping[str, Variant]]
"""The variants of a study with one of the seeds, by what the table calls them."""

Extra = Callable[[Predictions, Row], Mapping[str, float | None]]
"""Further shares in 0..1 of a finished cell, by the title of their column."""


@dataclass(frozen=True)
class Comparison:
    """A table of variants.

    Attributes:
        reference: The variant that the others are compared with.
        variants: Gives the variants of a study, the reference among them.
        metrics: Columns of a row that are shown, with their titles.
        compared: Metrics whose differences are shown: `accuracy`, `balanced_accuracy`, `auroc`.
        everywhere: Settings of all variants.
        rarely: Variants that are run at the largest number of shots alone.
        against: Variants that are compared with another one than `reference`.
        figures: Further columns of a row that are shown and are no shares.
        measure: Called after each federation for further columns of its row.
        extra: Computes further columns when the table is written.
        remark: What a reader must know beside what every table's note says.
    """

    title: str
    reference: str
    variants: Variants
    metrics: Mapping[str, str] = field(default_factory=lambda: dict(METRICS))
    compared: tuple[str, ...] = ("accuracy", "auroc")
    everywhere: Changes = field(default_factory=dict)
    rarely: frozenset[str] = frozenset()
    against: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    measure: Measure | None = None
    extra: Extra | None = None
    remark: str = ""

    def cells(
        self,
        studies: Sequence[Path],
        shots: Sequence[int],
        seeds: Sequence[int],
        methods: Sequence[str] = (),
    ) -> list[Cell]:
        """All runs of the table; those that share their texts follow each other.

        Shots are labelled images of each class and site; seeds draw them, and the splits. Without
        `methods` all variants are run; what one is compared with always is.

        Raises:
            ConfigurationError: A study has no such variant, or cannot be in this table.
        """
        made = []
        for study in studies:
            for seed in seeds:
                # With the seed, as variants may be drawn from it.
                scenario = load_scenario(study, changes={"study": {"seed": seed}})
                variants = self.variants(scenario)
                if unknown := sorted(set(methods) - variants.keys()):
                    raise ConfigurationError(
                        f"--methods {','.join(unknown)}: for {study.name} the lines of this table "
                        f"are {', '.join(variants)}"
                    )
                wanted = set(methods or variants)
                wanted |= {self.reference, *(self.against[n] for n in wanted if n in self.against)}
                names = [name for name in variants if name in wanted]
                title = scenario.study.study.name
                drawn = {"study": {"seed": seed}, "simulation": {"split_seed": seed}}
                for count in sorted(shots, reverse=True):  # the longest first
                    for name in names:
                        if name in self.rarely and count < max(shots):
                            continue
                        labels = {"study": title, "shots": count, "method": name, "seed": seed}
                        variant, of_shots = variants[name], {"alignment": {"shots": count}}
                        changes = merged(self.everywhere, drawn, of_shots, variant.changes)
                        made.append(Cell(labels, study, changes, variant.method, self.measure))
        return made

    def write(self, rows: Sequence[Row], out: Path) -> str:
        """Write `table.csv`, `.md` and `.png`, and all in `report.html`; returns the Markdown."""
        more = [self._extra_of(row, out) for row in rows]
        columns = list(dict.fromkeys(title for part in more for title in part))
        rows = [
            {**row, **dict.fromkeys(columns), **part} for row, part in zip(rows, more, strict=True)
        ]
        write_csv(rows, out / "table.csv")
        table, note = self.as_table(rows, out, columns), self.note_of(rows)
        said = (f"- {row['method']}: {row['error']}\n" for row in rows if row["error"])
        failed = "".join(dict.fromkeys(said))
        reasons = f"\nCould not be run:\n\n{failed}" if failed else ""
        text = f"{markdown(table)}\n{note}\n{reasons}"
        write_atomically(out / "table.md", text.encode())
        if len({row["shots"] for row in rows}) > 1:
            shots_plot(rows, out / "table.png")
        else:
            titles = {name: self.metrics[name] for name in self.compared}
            differences_plot(rows, self.reference, out / "table.png", titles, self.against)
        write_page(out / "report.html", self.title, table, out / "table.png", note)
        return text

    def note_of(self, rows: Sequence[Row]) -> str:
        """What the numbers are."""
        seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
        groups = {
            other: [name for name, one in self.against.items() if one == other]
            for other in dict.fromkeys(self.against.values())
        }
        others = "".join(
            f' In its place, "{other}" is what these are compared with: {"; ".join(names)}.'
            for other, names in groups.items()
        )
        remark = f" {self.remark}" if self.remark else ""
        return (
            f"Seeds {seeds}: means over them, in per cent, of all test images together. "
            f'"vs" is the difference from {self.reference}, in points, paired: first over seeds '
            f"(95 % t-interval), then over patients (95 % bootstrap).{others}{remark}"
        )

    def _extra_of(self, row: Row, out: Path) -> Mapping[str, float | None]:
        found = _predictions(out, row) if self.extra else None
        return self.extra(found, row) if self.extra and found else {}

    def as_table(self, rows: Sequence[Row], out: Path, extra: Sequence[str] = ()) -> Table:
        """Means over the seeds and paired differences from the reference.

        Cells below `out` hold predictions; `extra` are further columns that are shares.
        """
        shares = {**self.metrics, **{title: title for title in extra}}
        columns = {name: Figure(title, 100, 1) for name, title in shares.items()}
        columns |= self.figures
        header = ["study", "shots", "method", *(figure.title for figure in columns.values())]
        for metric in self.compared:
            header += [f"{self.metrics[metric]} vs {self.reference}, seeds", "patients"]
        lines = []
        groups = dict.fromkeys((r["study"], r["shots"], r["method"]) for r in rows)
        for study, shots, name in groups:
            other = self.against.get(name, self.reference)
            ours, theirs = rows_of(rows, study, shots, name), rows_of(rows, study, shots, other)
            line = [study, str(shots), name]
            line += [_number(ours, column, figure) for column, figure in columns.items()]
            for metric in self.compared:
                line += ["–", "–"] if name == other else difference(ours, theirs, metric, out)
            lines.append(line)
        return Table(header, lines)


def difference(ours: Sequence[Row], theirs: Sequence[Row], metric: str, out: Path) -> list[str]:
    """Ours less theirs in points, with the interval over seeds, and that over patients.

    Both are rows of one method each, in the order of the seeds; the metric is one that
    `patients_interval` knows. Cells below `out` hold predictions.
    """
    if not _comparable(ours, theirs, metric):
        return ["–", "–"]
    values = ([row[metric] for row in part] for part in (ours, theirs))
    pairs = [
        (one, two)
        for mine, yours in zip(ours, theirs, strict=True)
        if (one := _predictions(out, mine)) and (two := _predictions(out, yours))
    ]
    same = all(
        one.groups == two.groups and np.array_equal(one.labels, two.labels) for one, two in pairs
    )
    patients = patients_interval(pairs, metric) if pairs and same else None
    return [points(seeds_interval(*values)), points(patients, value=False)]


def rows_of(rows: Sequence[Row], study: str, shots: int, name: str) -> list[Row]:
    """Rows of every seed, in the order of the seeds."""
    wanted = (study, shots, name)
    found = [row for row in rows if (row["study"], row["shots"], row["method"]) == wanted]
    return sorted(found, key=lambda row: int(row["seed"]))


def _comparable(ours: Sequence[Row], theirs: Sequence[Row], metric: str) -> bool:
    """Whether both have a value for the same seeds."""
    seeds = [[row["seed"] for row in part if row[metric] is not None] for part in (ours, theirs)]
    return seeds[0] == seeds[1] and len(seeds[0]) == len(ours) > 0


def _predictions(out: Path, row: Row) -> Predictions | None:
    labels = {name: row[name] for name in ("study", "shots", "method", "seed")}
    return predictions_of(out, Cell(labels, Path(), {}))


def _number(rows: Sequence[Row], column: str, figure: Figure) -> str:
    """Mean over the rows that have it."""
    values: list[Any] = [row[column] for row in rows if row.get(column) is not None]
    return f"{figure.scale * float(np.mean(values)):,.{figure.digits}f}" if values else "–"
