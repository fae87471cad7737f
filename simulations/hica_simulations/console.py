"""What a person sees: a bar per federation while it runs, a table at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hica.progress import say
from hica_server.app import Watcher
from hica_server.console import final_table
from hica_simulations.run import Watching

if TYPE_CHECKING:  # deployments need Linux, simulations do not
    from hica_simulations.deployment import Comparison


def watching_on(console: Console) -> Watching:
    """A bar on a terminal, a line per step in a log."""
    return lambda name: _bar(console, name) if console.is_terminal else _lines(name)


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
    line = _line(name)
    yield Watcher(lambda description, number, total: line(number + 1, total, description))


def _line(name: str) -> Callable[[int, int, str], None]:
    """Prints how far something has come, what is done, and the seconds since now."""
    started = time.monotonic()

    def line(number: int, total: int, what: str) -> None:
        elapsed = time.monotonic() - started
        say(f"{name}: [{number}/{total}] {what} ({elapsed:.0f} s)")

    return line


@contextmanager
def counting(console: Console, name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Progress over many runs, with the time left: a bar on a terminal, a line a run in a log.

    Gives what is called with the number of finished runs and the one that has just been finished.
    """
    if not console.is_terminal:
        line = _line(name)
        yield lambda number, what: line(number, total, what)
        return
    described = TextColumn("{task.description}")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), described)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=total)
        yield lambda number, what: progress.update(task, completed=number, description=what)
        progress.update(task, completed=total, description="done")


def comparison_table(compared: Comparison) -> Group:
    """The table of a deployed run, that of its simulation, and how far apart they are."""
    deployed, simulated = map(final_table, (compared.deployed, compared.simulated))
    deployed.title = f"{deployed.title}: over real processes"
    simulated.title = f"{simulated.title}: in one process"
    return Group(deployed, simulated, f"largest difference of a metric: {compared.difference:.1e}")
