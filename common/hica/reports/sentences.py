"""sentences: where a report's sentences lie, without what is no finding of this image.

Only English is read, and no more than `MOST_CHARACTERS` of a report.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

MOST_CHARACTERS = 20_000
"""Of a report, about 3,000 words; what comes after is left out and counted."""
MOST_WORDS = 60
"""Of a sentence: a text without any full stop is cut into pieces of this length."""

ASIDE = (
    "indication",
    "clinical indication",
    "clinical history",
    "clinical information",
    "history",
    "reason for exam",
    "reason for examination",
    "comparison",
    "comparisons",
    "technique",
    "procedure",
    "exam",
    "examination",
    "recommendation",
    "recommendations",
    "electronically signed",
    "dictated by",
)
"""Sections that ask, or tell of other images: what they name is not seen in this one."""
READ = ("findings", "impression", "conclusion", "opinion", "report", "result", "results")
_HEADING = re.compile(
    rf"(?:^|(?<=[\n.:;]))[ \t]*(?P<name>{'|'.join(sorted({*ASIDE, *READ}, key=len, reverse=True))})"
    r"(?:[ \t]+(?:of|for)[^\n:]{0,40})?[ \t]*:",
    re.IGNORECASE,
)
_END = re.compile(
    r"(?:(?<=[^\W\d_]{2})|(?<=[)%\d]))\.+(?=\s|[A-Z]|$)"  # not in a number or after an initial
    r"|[;?!•]+|\n\s*\n|\n(?=\s*(?:[-*•]|\d{1,2}[.)]))"
)
_NUMBERING = re.compile(r"(?:^|(?<=[\s.]))\d{1,2}[.)](?=\s+[^\W\d_])")
_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"[^\W\d_]{2}")
_PLACEHOLDER = re.compile(r"\bX{2,}\b|\[\*\*.*?\*\*\]|_{3,}|<[A-Z]+>|\[[A-Z ]+\]")
"""What stands where a name or a date was taken out: XXXX, [**…**], ___, <NAME>."""


class Span(NamedTuple):
    """A stretch of a report, in characters."""

    start: int
    end: int


def sentences(report: str) -> list[Span]:
    """Where the sentences of a report are, in order; none of an empty one."""
    report = report[:MOST_CHARACTERS]
    return [
        piece
        for section in _sections(report)
        for sentence in _cut(report, section)
        for piece in _bounded(report, sentence)
    ]


def is_cut(report: str) -> bool:
    """Whether a report is longer than what is read of it."""
    return len(report) > MOST_CHARACTERS


def without_placeholders(text: str) -> str:
    """A text without what stands for names and dates that were taken out, on one line."""
    return " ".join(_PLACEHOLDER.sub(" ", text).split())


def _sections(report: str) -> Iterator[Span]:
    """The stretches that tell of this image: all but those below a heading of `ASIDE`."""
    headings = list(_HEADING.finditer(report))
    yield Span(0, headings[0].start() if headings else len(report))
    for number, heading in enumerate(headings):
        ends = headings[number + 1].start() if number + 1 < len(headings) else len(report)
        if heading["name"].lower() not in ASIDE:
            yield Span(heading.end(), ends)


def _cut(report: str, section: Span) -> Iterator[Span]:
    """A section at full stops, list numbers and empty lines."""
    text = report[section.start : section.end]
    cuts = [(found.start(), found.end()) for found in _END.finditer(text)]
    cuts += [(found.start(), found.end()) for found in _NUMBERING.finditer(text)]
    at = 0
    for start, end in [*sorted(cuts), (len(text), len(text))]:
        if _LETTERS.search(text[at:start]):
            yield Span(section.start + at, section.start + start)
        at = max(at, end)


def _bounded(report: str, sentence: Span) -> Iterator[Span]:
    """A sentence, or pieces of it where it is too long for a text tower."""
    words = list(_WORD.finditer(report, *sentence))
    for first in range(0, len(words), MOST_WORDS):
        group = words[first : first + MOST_WORDS]
        yield Span(group[0].start(), group[-1].end())
