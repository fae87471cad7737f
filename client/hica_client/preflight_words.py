"""preflight_words: what preflight found, for a person: counts, then notes and problems."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from hica.printable import printable, size_words
from hica_client.preflight_report import Preflight

TOLD_ELSEWHERE = ("labels", "copies", "read_notes")
"""Facts that have a table or notes of their own."""


def show(found: Preflight, console: Console) -> None:
    """Print facts, notes and problems, and in the last line whether the site is ready."""
    facts = {
        name: value
        for name, value in found.facts.items()
        if name not in TOLD_ELSEWHERE and value not in ({}, [])
    }
    console.print(
        fact_table((name.replace("_", " "), _in_words(name, facts[name])) for name in facts)
    )
    if found.facts.get("labels"):
        console.print(_label_table(found.facts["labels"]))
    for note in found.notes:
        console.print(f"[yellow]note[/] {printable(note)}", soft_wrap=True)
    for problem in found.problems:
        console.print(f"[red]problem[/] {printable(str(problem))}", soft_wrap=True)
    count = len(found.problems)
    console.print(f"[red]{count} to mend" if count else "[green]ready", highlight=False)


def fact_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Names and values, without a frame."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, words in facts:
        table.add_row(name, printable(words))
    return table


def _in_words(name: str, value: Any) -> str:
    """A fact of preflight in words that fit into one cell."""
    if name == "cache":
        needed, present, free = (size_words(value[key]) for key in ("needed", "present", "free"))
        return f"up to {needed}, {present} there already, {free} free"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_counted(each)}" for key, each in value.items())
    return str(value)


def _counted(value: Any) -> Any:
    """How many names a list has; anything else as it is."""
    return len(value) if isinstance(value, list) else value


def _label_table(labels: dict[str, dict[str, int]]) -> Table:
    splits = sorted({split for row in labels.values() for split in row})
    table = Table("label", title="images", title_justify="left")
    for split in splits:
        table.add_column(printable(split), justify="right")
    for label, row in labels.items():
        table.add_row(printable(label), *(str(row.get(split, 0)) for split in splits))
    return table
