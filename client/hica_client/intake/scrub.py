"""Text without what names a person: known words, and whatever looks like a date or a number."""

import re
from collections.abc import Callable, Iterable, Iterator

from hica_client.intake.looks_like import LOOKS_LIKE
from hica_client.intake.writings import WORD, without_format, writings

REMOVED = "[removed]"
COMPOUND = re.compile(rf"{WORD.pattern}(?:[-'’./_]{WORD.pattern})*")
"""Such as `PID-47/11`, which is known as a whole."""
COMPONENT = re.compile(r"[\^,]")
"""What parts family name, given name and others."""
ENDINGS = ("s", "n", "es", "ns", "ens")
"""Of a genitive, say: `Müllers`."""
BETWEEN = re.compile(r"[-–'’./_^,:# ]{0,2}")
"""What may stand between the parts of what is known as a whole: `P 5` is `P-5`."""
MOST_PARTS = 4
"""Of what is known as a whole, where signs stand between them."""
WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]{2,}")
"""Chinese, Japanese, Korean: a name may stand anywhere in a row of signs."""
MOST_SIGNS = 6
"""Of such a name."""

Span = tuple[int, int]


def words_of(names: Iterable[str], numbers: Iterable[str]) -> frozenset[str]:
    """The words of persons' names and of identifiers, in all their `writings`.

    Of names, words of one letter are left, and names are known in one piece, too (`smithjohn`); of
    identifiers of several parts, those parts that are short or hold no digit.
    """
    words: set[str] = set()
    for name in names:
        words |= {*WORD.findall(without_format(name)), *COMPOUND.findall(without_format(name))}
        for writing in name.split("="):
            words |= {*_in_one_piece(writing)}
    for number in map(without_format, numbers):
        words |= {number, *COMPOUND.findall(number)}
        words |= {part for part in WORD.findall(number) if len(part) > 3 and not part.isalpha()}
    known = {writing for word in words for writing in writings(word)}
    return frozenset(word for word in known if len(word) > 1)


def scrubbed(text: str, known: Callable[[str], bool]) -> str:
    """`text` on one line, a placeholder for each word one of whose `writings` is `known`."""
    plain = "".join(sign if sign.isprintable() else " " for sign in without_format(text))
    plain = " ".join(plain.split())
    spans = [found.span() for found in LOOKS_LIKE.finditer(plain)]
    spans += [(start, end) for start, end in _pieces(plain) if _is_known(plain[start:end], known)]
    plain = _cut(plain, spans)
    while (again := LOOKS_LIKE.sub(REMOVED, plain)) != plain:
        plain = again
    return re.sub(rf"{re.escape(REMOVED)}( ?{re.escape(REMOVED)})+", REMOVED, plain)


def _in_one_piece(name: str) -> Iterator[str]:
    """A name without what stands between its components, from each of them on."""
    parts = [part for part in COMPONENT.split(name) if part.strip()]
    if len(parts) == 1:
        parts = WORD.findall(parts[0])
    for shown in (parts[:2], parts[:3]):
        for start in range(len(shown)):
            yield "".join(shown[start:] + shown[:start])


def _is_known(piece: str, known: Callable[[str], bool]) -> bool:
    """Whether a piece of text is known as it is, or a word without its ending."""
    word = WORD.fullmatch(piece)  # else in `Anna e Maria` the e would be of Anna
    if any(map(known, writings(piece, loosely=bool(word)))):
        return True
    if not word:
        return False
    least = 3 if piece[:1].isupper() else 4
    stems = (piece[: -len(ending)] for ending in ENDINGS if piece.lower().endswith(ending))
    return any(known(writing) for stem in stems if len(stem) >= least for writing in writings(stem))


def _pieces(text: str) -> Iterator[Span]:
    """Where there may be something that is known: words, their parts, and several in a row."""
    for found in COMPOUND.finditer(text):
        if _is_no_measure(found[0]):
            yield found.span()
    for found in WITHOUT_SPACES.finditer(text):
        for start in range(*found.span()):
            for end in range(start + 2, min(start + MOST_SIGNS, found.end()) + 1):
                yield start, end
    parts: list[Span] = []
    for found in WORD.finditer(text):
        yield found.span()
        parts += _parts(text, *found.span())
    for first, (start, end) in enumerate(parts):
        if _stands_alone(text, start, end):
            yield start, end
        for other in range(first + 1, min(first + MOST_PARTS, len(parts))):
            if not BETWEEN.fullmatch(text, parts[other - 1][1], parts[other][0]):
                break
            if _is_no_measure(text[start : parts[other][1]]):
                yield start, parts[other][1]


def _is_no_measure(piece: str) -> bool:
    """Whether several parts may be known as one: `3.5` is not the patient 35."""
    return any(map(str.isalpha, piece)) or sum(map(str.isdigit, piece)) > 3


def _parts(text: str, start: int, end: int) -> Iterator[Span]:
    """The parts of a word: `John` and `Smith` of `JohnSmith`, `Smith` and `2` of `Smith2`."""
    for at in range(start + 1, end):
        before, here = text[at - 1], text[at]
        if before.isdigit() != here.isdigit() or (before.islower() and here.isupper()):
            yield start, at
            start = at
    yield start, end


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a part may be known by itself; `Th` of `Th12` may not."""
    beside = text[max(start - 1, 0) : start] + text[end : end + 1]
    return end - start > 2 or not any(map(str.isalnum, beside))


def _cut(text: str, spans: Iterable[Span]) -> str:
    """`text` with a placeholder for each of the spans, which may overlap."""
    kept, at = [], 0
    for start, end in sorted(spans):
        if start >= at:
            kept += [text[at:start], REMOVED]
        at = max(at, end)
    return "".join((*kept, text[at:]))
