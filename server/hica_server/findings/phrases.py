"""What findings may look like, whoever wrote them."""

import unicodedata
from collections.abc import Sequence

LONGEST = 100
"""Characters. A finding is a phrase for one region; text towers cut what is far longer."""


def problem(phrase: str) -> str:
    """Why `phrase` can be no finding; empty where it can.

    A manifest names findings by exactly these words, apart by `|`: what cannot be typed there, or
    looks like another finding and is none, is refused.
    """
    if not phrase.strip():
        return "is empty"
    if any(unicodedata.category(character).startswith("C") for character in phrase):
        return "holds a control or invisible character"
    if phrase != " ".join(phrase.split()):
        return "has a blank at an end, or two in a row"
    if "|" in phrase:
        return "holds a |, which separates findings in a manifest"
    if len(phrase) > LONGEST:
        return f"has {len(phrase)} characters, more than {LONGEST}"
    return ""


def problems_of(findings: Sequence[str]) -> list[str]:
    """What is wrong with the findings of one class, each with its remedy."""
    if not findings:
        return ["has no findings; give at least one phrase"]
    found = [
        f"finding {text!r} {why}; rewrite or remove it"
        for text in findings
        if (why := problem(text))
    ]
    folded = [text.casefold() for text in findings]
    twice = dict.fromkeys(text for text in folded if folded.count(text) > 1)
    return found + [f"finding {text!r} is listed more than once; keep one" for text in twice]
