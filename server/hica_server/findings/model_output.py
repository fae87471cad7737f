"""Findings in what a language model has written, and why each other line was left out."""

import re
from typing import NamedTuple

from hica_server.findings.phrases import problem

MOST_WORDS = 8
"""Longer lines are sentences about the task, not phrases for a region."""

MARKER = re.compile(
    r"^(?:[-*+•·‣▪◦–—>]\s*|\(?\d{1,3}[.):](?!\d)\s*|\(?[a-z][.)]\s+)+", re.IGNORECASE
)
"""Bullets, numbers and letters before the item of a list; not the start of `1.5 cm`."""
MARKUP = str.maketrans("", "", '*`_"“”„«»')
ENDS = " \t.,;'‘’"
NEGATION = re.compile(
    r"\b(no|none|without|absen(t|ce)|lack(s|ing)?|free of|negative for|not (seen|present))\b"
)
"""Not every `not`: "not parallel orientation" can be seen."""
THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class ModelOutput(NamedTuple):
    """What was read of a model's answer."""

    findings: list[str]
    left_out: list[tuple[str, str]]
    """Line and reason."""


def read_output(text: str, most: int) -> ModelOutput:
    """Read one finding a line, in lower case, without bullets, numbers, quotes and markup.

    What the model thought before (`<think>`) is passed over; only the first `most` are kept.
    """
    findings: list[str] = []
    left_out: list[tuple[str, str]] = []
    for line in THOUGHTS.sub("", text).splitlines():
        phrase = _bare(line)
        if not phrase:
            continue
        if reason := _reason(phrase, findings, most):
            left_out.append((line.strip(), reason))
        else:
            findings.append(phrase)
    return ModelOutput(findings, left_out)


def _bare(line: str) -> str:
    """The phrase of a line, less what explains it: `oval shape: wider than tall`.

    A single word before a colon is a heading (`shape: oval`), which `_reason` leaves out.
    """
    item = MARKER.sub("", line.strip()).translate(MARKUP).strip()
    head = re.split(r": | [-–—] ", item)[0]
    phrase = head if " " in head else item
    return " ".join(phrase.strip(ENDS).split()).lower()


def _reason(phrase: str, findings: list[str], most: int) -> str:
    """Why a phrase is no finding, or is one too many; empty where it is kept."""
    if why := problem(phrase):
        return why
    if ":" in phrase or ". " in phrase or phrase.startswith("#") or phrase.endswith(("!", "?")):
        return "is a heading or a sentence"
    if len(phrase.split()) > MOST_WORDS:
        return f"has more than {MOST_WORDS} words"
    if sum(character.isalpha() for character in phrase) < 3:
        return "holds no word"
    if NEGATION.search(phrase):
        return "names what is absent"
    if phrase in findings:
        return "is there already"
    if len(findings) == most:
        return f"comes after the {most} that were asked for"
    return ""
