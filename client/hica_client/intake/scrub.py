"""Text without what names a person: known words, and whatever looks like a date or a number."""

import re
from collections.abc import Callable, Iterable

REMOVED = "[removed]"
WORD = re.compile(r"\w+")
COMPOUND = re.compile(r"\w+(?:[-'’./]\w+)*")
"""Such as `PID-47/11`, which is known as a whole."""
MAIL = re.compile(r"\b[\w.+-]+@[\w.-]+\w")
MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
LOOKS_LIKE = re.compile(
    "|".join(
        (
            r"\b\d+(?:\.\d+){4,}",  # a UID
            r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b",  # a date
            rf"\b\d{{1,2}}\.?\s+{MONTHS}\.?,?\s+\d{{2,4}}\b",
            rf"\b{MONTHS}\.?\s+\d{{1,2}},?\s+\d{{4}}\b",
            r"\+?\b\d{2,5}[ /-]\d{3,}(?:[ /-]?\d{2,})*\b",  # a telephone
            r"\b[A-Za-z]{0,4}\d{6,}\w*",  # an order, a compact date
        )
    ),
    re.IGNORECASE,
)


def words_of(names: Iterable[str], numbers: Iterable[str]) -> frozenset[str]:
    """The words of persons' names and of identifiers, in lower case.

    Of names, words of one letter are left; of identifiers of several parts, those parts that are
    short or hold no digit.
    """
    words = {word for name in names for word in (*WORD.findall(name), *COMPOUND.findall(name))}
    for number in numbers:
        words |= {number.strip(), *COMPOUND.findall(number)}
        words |= {part for part in WORD.findall(number) if len(part) > 3 and not part.isalpha()}
    return frozenset(word.casefold() for word in words if len(word) > 1)


def scrubbed(text: str, known: Callable[[str], bool]) -> str:
    """`text` on one line, with a placeholder for each word that is `known` (in lower case)."""

    def word_of(found: re.Match[str]) -> str:
        return REMOVED if known(found[0].casefold()) else found[0]

    def part_of(found: re.Match[str]) -> str:
        word = word_of(found)
        return WORD.sub(word_of, word) if word != REMOVED else word

    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    plain = MAIL.sub(REMOVED, " ".join(plain.split()))
    plain = COMPOUND.sub(part_of, plain)
    plain = LOOKS_LIKE.sub(REMOVED, plain)
    return re.sub(rf"{re.escape(REMOVED)}( {re.escape(REMOVED)})+", REMOVED, plain)
