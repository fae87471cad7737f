"""Progress on standard error: a bar on a terminal, a line at start and end in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import rich.progress
from rich.console import Console

Item = TypeVar("Item")

console = Console(stderr=True)
"""The one console of a process: bars of several threads on it do not overwrite each other.

One of many processes that work for one command sets `quiet` and leaves the word to the command."""


def time_in_log() -> str:
    """The time before a line on standard error, as in other logs; empty on a terminal."""
    return "" if console.is_terminal else time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime())


def say(line: str) -> None:
    """Write a line on standard error, whole.

    Several threads write there, and `print` writes the end of a line by itself.
    """
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def track(sequence: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items of a sequence, showing how far it has come.

    What is done to them is said in the words of `description`, for example `reading images`;
    `total` is their number, where `len(sequence)` does not say.
    """
    if console.quiet:
        yield from sequence
        return
    if total is None and isinstance(sequence, Sized):
        total = len(sequence)
    if console.is_terminal:
        yield from rich.progress.track(sequence, description, total=total, console=console)
        return
    number = total if total is not None else "some"
    say(f"{time_in_log()}{description}: {number} items")
    started = time.monotonic()
    yield from sequence
    seconds = time.monotonic() - started
    say(f"{time_in_log()}{description}: done in {seconds:.1f} s")
