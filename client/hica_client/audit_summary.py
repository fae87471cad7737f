"""Summary of the audit log, for people who did not follow the run."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hica.printable import printable
from hica.wire.messages import shown_round
from hica_client.audit import verify
from hica_client.chain import FIRST

LAST = 20
"""Refusals and failures that are shown singly."""
_BRIEF = ("time", "kind", "round", "study", "decision", "reason")
"""What is shown of each."""
_COLUMNS = ("sent", "failed", "refused", "arrays", "bytes")


def summarise(log: Path) -> dict[str, Any]:
    """Verify an audit log and sum it up; JSON.

    Raises:
        DataError: The log was changed or cut short; names the line.
        StorageError: It cannot be read.
    """
    entries = verify(log)
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COLUMNS, 0))
    for entry in entries:
        row = kinds[entry["kind"] or entry["event"]]
        row[entry["decision"]] += 1
        row["bytes"] += entry["bytes"]
        row["arrays"] += len(entry["arrays"])
    kept_back = [entry for entry in entries if entry["decision"] != "sent"]
    return {
        "log": str(log),
        "entries": len(entries),
        "hash": entries[-1]["hash"] if entries else FIRST,
        "first": entries[0]["time"] if entries else None,
        "last": entries[-1]["time"] if entries else None,
        "bytes": sum(entry["bytes"] for entry in entries),
        "studies": sorted({entry["study"] for entry in entries if entry["study"]}),
        "kinds": dict(sorted(kinds.items())),
        "not_sent": [_brief(entry) for entry in kept_back[-LAST:]],
    }


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    """What is shown of an entry, its round as people count it."""
    return {name: entry[name] for name in _BRIEF} | {"round": shown_round(entry["round"])}


def show_summary(found: dict[str, Any], console: Console) -> None:
    """Print a summary for people."""
    if not found["entries"]:
        console.print(f"{printable(found['log'])}: nothing has left this site yet", soft_wrap=True)
        return
    table = Table("request", title=f"{found['first']} to {found['last']}", title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for kind, row in found["kinds"].items():
        table.add_row(printable(kind), *(f"{row[column]:,}" for column in _COLUMNS))
    console.print(table)
    for entry in found["not_sent"]:
        place = f"{entry['time']} {entry['kind']} round {entry['round']}"
        console.print(
            f"{printable(place)} [yellow]{entry['decision']}[/] {printable(entry['reason'])}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"[green]{found['entries']} entries, the chain is whole[/]; last hash {found['hash']}",
        highlight=False,
        soft_wrap=True,
    )
