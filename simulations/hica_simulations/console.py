"""What a person sees: a bar per federation while it runs, a table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hica_server.app import Watcher
from hica_simulations.run import Watching

METHODS = {
    "zero_shot": "zero-shot (texts only)",
    "pixels": "logistic regression on 16×16 pixels, pooled shots",
    "linear_probe": "linear probe on the tower's features, pooled shots",
    "local_only": "HiCA local only (mean over sites)",
    "federated": "HiCA federated",
    "pooled": "HiCA pooled (images in one place)",
}


def watching_on(console: Console) -> Watching:
    """A bar on a terminal, a line per step in a log."""

    def watching(name: str) -> AbstractContextManager[Watcher]:
        return _bar(console, name) if console.is_terminal else _lines(name)

    return watching


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Watcher]:
    """A progress bar over the steps of the plan, with the last round's loss."""
    columns = (
        TextColumn("[bold]{task.fields[federation]:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None, federation=name)

        def step(description: str, number: int, total: int) -> None:
            progress.update(task, completed=number, total=total, description=description)

        def entry(entry: dict[str, Any]) -> None:
            if entry["loss"] is not None:
                progress.update(task, description=f"{entry['stage']} loss {entry['loss']:.3f}")

        yield Watcher(step, entry)
        total = progress.tasks[0].total
        if total is not None:
            progress.update(task, completed=total, description="done")


@contextmanager
def _lines(name: str) -> Iterator[Watcher]:
    """One line on standard error per step."""
    started = time.monotonic()

    def step(description: str, number: int, total: int) -> None:
        elapsed = time.monotonic() - started
        line = f"{name}: [{number + 1}/{total}] {description} ({elapsed:.0f} s)"
        print(line, file=sys.stderr, flush=True)

    yield Watcher(step)


def final_table(result: dict[str, Any]) -> Table:
    """Methods by metrics, each with its 95 % interval."""
    table = Table(title=f"{result['study']}, seed {result['seed']}")
    table.add_column("method")
    names = ("accuracy", "balanced accuracy", "AUROC")
    for name in names:
        table.add_column(f"{name} % [95 %]", justify="right")
    measured = {**result["baselines"], "federated": result["final"]}
    for key, title in METHODS.items():
        if key not in measured:
            continue
        cells = [
            _percent(measured[key][metric]) for metric in ("accuracy", "balanced_accuracy", "auroc")
        ]
        table.add_row(title, *cells, style="bold" if key == "federated" else "")
    return table


def _percent(interval: dict[str, float] | None) -> str:
    """`81.2 [78.0, 84.1]`, or a dash where the metric is not defined."""
    if interval is None:
        return "–"
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * interval['value']:5.1f} [{low:.1f}, {high:.1f}]"
