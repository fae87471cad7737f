"""causes: a mistake that is in 5,000 rows is one problem, not 5,000."""

import re
from collections.abc import Iterable

from hica.errors import HicaError
from hica.printable import listed


def by_cause(problems: Iterable[tuple[str, str, HicaError]], what: str = "rows") -> list[HicaError]:
    """The first problem of each cause, with how many more there are and where.

    Args:
        problems: Where each one is, its cause, and the problem itself.
        what: What is counted, in words.
    """
    found: dict[str, tuple[HicaError, list[str]]] = {}
    for place, cause, problem in problems:
        found.setdefault(cause, (problem, []))[1].append(place)
    return [_said(problem, places, what) for problem, places in found.values()]


def cause_of(message: str, *names: str) -> str:
    """What is the same in messages of one kind: without the names of files, numbers and quotes."""
    for name in names:
        message = message.replace(name, "")
    return re.sub(r"[-−]?\d+([.,]\d+)?", "#", re.sub(r"'[^']*'", "''", message))


def _said(problem: HicaError, places: list[str], what: str) -> HicaError:
    """One problem that speaks for all at `places`."""
    told = problem
    if more := places[1:]:
        told = type(problem)(f"{problem} (and so in {len(more):,} more {what}: {listed(more)})")
    told.places = places
    return told
