"""Spending: what the privacy ledger says in sum, and what may still be spent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hica.printable import printable
from hica.privacy.accountant import Charge, epsilon
from hica_client.chain import FIRST
from hica_client.ledger import Spending, spendings, verify

MOST_STEPS = 2**40
"""More steps than this are not looked for."""


def spending(ledger: Path, max_epsilon: float | None, delta: float) -> dict[str, Any]:
    """Verify a ledger and sum it up; JSON.

    The ε of the rows do not add up to the total, which is less: releases compose better than that.
    What is `left` to a row is by how much its own ε could grow by more of its last kind of step,
    were nothing else charged; `steps_left` is how many these are. `max_epsilon` and `delta` are
    those of the site's policy; without the first nothing may be spent, nor is said to be left.

    Raises:
        DataError: The ledger was changed or cut short.
        StorageError: It cannot be read.
    """
    entries = verify(ledger)
    found = spendings(entries)
    total = epsilon((each.charge for each in found), delta)
    return {
        "ledger": str(ledger),
        "entries": len(entries),
        "hash": entries[-1]["hash"] if entries else FIRST,
        "first": entries[0]["time"] if entries else None,
        "last": entries[-1]["time"] if entries else None,
        "repairs": [
            {name: entry[name] for name in ("time", "user", "why", "kept")}
            for entry in entries
            if entry["event"] == "repair"
        ],
        "unit": found[0].unit if found else None,
        "delta": delta,
        "epsilon": total,
        "max_epsilon": max_epsilon,
        "left": None if max_epsilon is None else max(0.0, max_epsilon - total),
        "rows": [_row(mine, found, max_epsilon, delta) for mine in _rows(found)],
    }


def show_spending(found: dict[str, Any], console: Console) -> None:
    """Print it for people."""
    budget = found["max_epsilon"]
    if found["rows"]:
        table = Table("study", "mechanism", "unit", "holds against", "noise")
        table.title = f"{found['first']} to {found['last']}"
        table.title_justify = "left"
        for column in ("steps", "ε spent", "ε left", "steps left"):
            table.add_column(column, justify="right")
        for row in found["rows"]:
            names = (row["study"][:12], row["mechanism"], row["unit"], row["holds"], row["noise"])
            numbers = (_number(row["epsilon"]), _number(row["left"]), _count(row["steps_left"]))
            table.add_row(*map(printable, names), f"{row['steps']:,}", *numbers)
        console.print(table)
    else:
        console.print(f"{printable(found['ledger'])}: nothing was charged yet", soft_wrap=True)
    for each in found["repairs"]:
        words = f"{each['time']} repaired by {each['user']}: {each['why']}"
        console.print(f"[yellow]{printable(words)}[/]", highlight=False, soft_wrap=True)
    limit = "policy.max_epsilon is not set: no private study is answered"
    if budget is not None:
        limit = f"of {budget:g}, {_number(found['left'])} left"
    console.print(
        f"all together: ε = {_number(found['epsilon'])} at δ = {found['delta']:g}, {limit}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"[green]{found['entries']} entries, the chain is whole[/]; last hash {found['hash']}",
        highlight=False,
        soft_wrap=True,
    )


def _rows(found: list[Spending]) -> list[list[Spending]]:
    """Spending by study, mechanism, unit, whom it holds against and source of the noise."""
    rows: dict[Spending, list[Spending]] = {}
    for each in found:
        key = replace(each, noise_multiplier=0.0, sampling_rate=1.0, steps=1)
        rows.setdefault(key, []).append(each)
    return list(rows.values())


def _row(
    mine: list[Spending], found: list[Spending], max_epsilon: float | None, delta: float
) -> dict[str, Any]:
    last = mine[-1]
    charges = [each.charge for each in mine]
    spent = epsilon(charges, delta)
    row: dict[str, Any] = {
        name: getattr(last, name) for name in ("study", "mechanism", "unit", "holds", "noise")
    }
    row |= {"steps": sum(each.steps for each in mine), "epsilon": spent}
    if max_epsilon is None:
        return row | {"left": None, "steps_left": None}
    total = [each.charge for each in found]

    def more(steps: int) -> list[Charge]:
        return [replace(last.charge, steps=steps)] if steps else []

    steps = _most(lambda count: epsilon([*total, *more(count)], delta) <= max_epsilon)
    left = epsilon([*charges, *more(steps)], delta) - spent
    return row | {"left": left, "steps_left": steps}


def _most(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, if all smaller ones do."""
    low, high = 0, 1
    while high < MOST_STEPS and fits(high):
        low, high = high, 2 * high
    while high > low + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
