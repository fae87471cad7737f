"""standing: whether a phrase of a sentence is affirmed, denied, or left uncertain.

A trigger has a scope, all of its clause or what follows it there, and conjunctions end a clause.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from hica.reports.sentences import Span
from hica.reports.triggers import ALL_NORMAL, BETWEEN_ITEMS, ENDS, FILLERS, TRIGGER

_WORD = re.compile(r"[^\W\d_]{3,}")
_BLANK = " \t\r\n,.-:;()"


class Standing(StrEnum):
    """What a report says of a thing."""

    AFFIRMED = "affirmed"
    UNCERTAIN = "uncertain"
    DENIED = "denied"


class Phrase(NamedTuple):
    """A stretch of a report that stands one way."""

    span: Span
    standing: Standing


def phrases(report: str, sentence: Span) -> list[Phrase]:
    """The phrases of a sentence, each with its standing; none that names nothing.

    A list of several things gives the whole and each item, so that "no effusion or pneumothorax"
    denies both.
    """
    found: dict[Span, Phrase] = {}
    for clause in _between(report, sentence, ENDS):
        for stretch, standing in _scopes(report, clause):
            items = list(_between(report, stretch, BETWEEN_ITEMS))
            for span in [stretch, *(items if len(items) > 1 else [])]:
                kept = _trimmed(report, span)
                if _names_something(report[kept.start : kept.end]):
                    found.setdefault(kept, Phrase(kept, standing))
    return list(found.values())


def calls_all_normal(sentence: str) -> bool:
    """Whether a sentence says that the whole image is normal."""
    return ALL_NORMAL.search(sentence.strip(_BLANK)) is not None


def _scopes(report: str, clause: Span) -> Iterator[tuple[Span, Standing]]:
    """A clause, cut where the scope of a trigger begins."""
    triggers = [found for found in TRIGGER.finditer(report, *clause) if found.lastgroup != "pseudo"]
    reach = {found: _reach(found) for found in triggers}
    of_all = {standing for of_clause, standing in reach.values() if of_clause}
    standing = Standing.AFFIRMED
    if of_all:
        standing = Standing.UNCERTAIN if Standing.UNCERTAIN in of_all else Standing.DENIED
    at = clause.start
    for found in triggers:
        of_clause, made = reach[found]
        if not of_clause:
            yield Span(at, found.start()), standing
            at, standing = found.end(), made
    yield Span(at, clause.end), standing


def _reach(trigger: re.Match[str]) -> tuple[bool, Standing]:
    """Whether a trigger holds for its whole clause, and what it makes of it."""
    reach, _, made = str(trigger.lastgroup).partition("_")
    return reach == "clause", Standing(made)


def _between(report: str, span: Span, cut: re.Pattern[str]) -> Iterator[Span]:
    """What lies between the places where `cut` matches."""
    at = span.start
    for found in cut.finditer(report, *span):
        yield Span(at, found.start())
        at = found.end()
    yield Span(at, span.end)


def _trimmed(report: str, span: Span) -> Span:
    """A span without blanks and punctuation at its ends."""
    text = report[span.start : span.end]
    start = span.start + len(text) - len(text.lstrip(_BLANK))
    return Span(start, max(start, span.end - (len(text) - len(text.rstrip(_BLANK)))))


def _names_something(text: str) -> bool:
    return any(not FILLERS.fullmatch(word) for word in _WORD.findall(text))
