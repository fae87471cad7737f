"""Cells: the runs behind a table, each kept in a folder of its own.

`out/cells/NAME/row.json` holds a finished cell's metrics, `predictions.json` beside it those of its
test images, and `scenario.toml` what was run; `run/` is the run directory while the cell lasts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import Changes, merged
from hica_simulations.place import Place
from hica_simulations.predictions import Predictions
from hica_simulations.run import PREDICTIONS, claim
from hica_simulations.scenario import Scenario, load_scenario

OURS = "federated"
LOCAL = "local_only"
POOLED = "pooled"

METRICS = ("accuracy", "balanced_accuracy", "auroc", "ece")
WORST = ("worst_accuracy", "worst_balanced_accuracy", "worst_auroc")
COSTS = ("seconds", "bytes_up", "bytes_down")
"""Bytes are a federation's; None for what is not one."""
ROW = "row.json"

SHARED_MODEL: Changes = {"personal": {"epochs": 0}}
"""Tables compare what is sent and averaged; what sites make of it has a table of its own."""

Row = dict[str, Any]
"""A cell's labels, `METRICS`, `WORST`, `COSTS`, and `error` where it could not be run."""

Measure = Callable[[Scenario, Place, Mapping[str, Any]], Mapping[str, Any]]
"""Further columns from a scenario, its place and `result.json`; a function of a module, as it goes
to other processes."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        labels: Its name in the table, column by column; no other cell has the same.
        changes: Settings of this cell; they go before `overrides`.
        method: `federated`, `local_only`, `pooled`, or the name of a baseline.
        measure: Called after a federation for further columns of its row.
        overrides: `section.key=value` of the command line.
    """

    labels: dict[str, Any]
    study: Path
    changes: Changes
    method: str = OURS
    measure: Measure | None = None
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of its folder."""
        words = "-".join(str(value) for value in self.labels.values())
        return words.replace(" ", "_").replace("/", "_")

    @property
    def settings(self) -> str:
        """What tells its scenario from others of the same file."""
        return json.dumps([self.overrides, self.changes], sort_keys=True)

    def scenario(self) -> Scenario:
        """What is run.

        Raises:
            ConfigurationError: The file or a setting is wrong.
        """
        return load_scenario(self.study, self.overrides, merged(SHARED_MODEL, self.changes))


def folder_of(out: Path, cell: Cell) -> Path:
    """Where a table whose folder is `out` keeps a cell."""
    return out / "cells" / cell.folder


def is_finished(folder: Path) -> bool:
    """Whether a cell's folder holds its row."""
    return (folder / ROW).exists()


def claim_cell(out: Path, cell: Cell) -> None:
    """Write what a finished cell has run, unless its folder holds a run of something else.

    Raises:
        ConfigurationError: The study or `--set` have changed since: the row would be another's.
    """
    try:
        scenario = cell.scenario()
    except ConfigurationError:  # it cannot be run, which is what its row says
        return
    claim(folder_of(out, cell), scenario)


def copy_cell(source: Path, target: Path) -> None:
    """Copy a finished cell's folder to another table's; the row, which makes it finished, last."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.json"), key=lambda file: file.name == ROW):
        write_atomically(target / file.name, file.read_bytes())


def read_row(out: Path, cell: Cell) -> Row:
    """The row of a finished cell of a table whose folder is `out`."""
    row: Row = json.loads((folder_of(out, cell) / ROW).read_text(encoding="utf-8"))
    return {**row, **cell.labels}  # JSON knows no infinity


def predictions_of(out: Path, cell: Cell) -> Predictions | None:
    """Predictions of a finished cell of a table; None where it could not be run."""
    path = folder_of(out, cell) / PREDICTIONS
    return Predictions.load(path) if path.exists() else None
