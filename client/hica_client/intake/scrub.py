"""Text without what names a person: known words, and whatever looks like a date or a number."""

import re
from collections.abc import Callable, Iterable

REMOVED = "[removed]"
WORD = re.compile(r"\w+")
MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
LOOKS_LIKE = re.compile(
    "|".join(
        (
            r"\b[\w.+-]+@[\w-]+\.[\w.]+",  # an address of electronic mail
            r"\b\d+(?:\.\d+){4,}",  # a UID
            r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b",  # a date
            rf"\b\d{{1,2}}\.?\s+{MONTHS}\.?,?\s+\d{{2,4}}\b",
            rf"\b{MONTHS}\.?\s+\d{{1,2}},?\s+\d{{4}}\b",
            r"\b[A-Za-z]{0,4}\d{6,}\w*",  # an order, a telephone, a compact date
            r"\+?\b\d{2,4}(?:[ /-]\d{2,5}){2,}\b",  # a telephone
        )
    ),
    re.IGNORECASE,
)


def words_of(names: Iterable[str], numbers: Iterable[str]) -> frozenset[str]:
    """The words of persons' names and of identifiers, in lower case.

    Of names, words of one letter are left; of identifiers, parts that hold no digit.
    """
    parts = {word.casefold() for name in names for word in WORD.findall(name) if len(word) > 1}
    for number in numbers:
        found = WORD.findall(number)
        whole = len(found) == 1
        parts |= {
            word.casefold()
            for word in found
            if len(word) > 1 and (whole or (len(word) > 3 and any(map(str.isdigit, word))))
        }
    return frozenset(parts)


def scrubbed(text: str, known: Callable[[str], bool]) -> str:
    """`text` on one line, with a placeholder for each word that is `known` (in lower case)."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    text = LOOKS_LIKE.sub(REMOVED, " ".join(plain.split()))
    return WORD.sub(lambda word: REMOVED if known(word[0].casefold()) else word[0], text).replace(
        f"{REMOVED} {REMOVED}", REMOVED
    )
