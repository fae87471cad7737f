"""The writings of a name or number that count as the same: `MUELLER`, `Müller`, `Mu\u0308ller`."""

import re
import unicodedata
from functools import lru_cache

MARKS = "".join(
    chr(sign) for sign in range(0x300, 0x10000) if unicodedata.category(chr(sign))[0] == "M"
)
WORD = re.compile(rf"(?:[^\W_]|(?<=[^\W_])[{MARKS}]|(?<=[{MARKS}])[{MARKS}])+")
"""Letters, their marks, and digits; an underscore parts words."""
SPELT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i"}
)
LONG = 5
"""Letters of a word in which `ue` may be a `u`: in a shorter one, Noe would be no."""


def without_format(text: str) -> str:
    """`text` in NFC, without soft hyphens and other signs that have no width."""
    seen = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFC", seen)


@lru_cache(maxsize=20_000)
def writings(text: str, loosely: bool = True) -> frozenset[str]:
    """The ways to write letters and digits of `text` without case, marks and signs.

    Two texts mean the same where they have one in common. `loosely`: of long words with `u` for
    `ue` also, as in `Muller`.
    """
    small = unicodedata.normalize("NFC", without_format(text).casefold())
    bare = _bare(small)
    found = {bare, _bare(small.translate(SPELT))}
    if loosely and len(bare) >= LONG:
        found.add(re.sub("([aou])e", r"\1", bare))
    return frozenset(found)


def _bare(text: str) -> str:
    """Letters and digits alone, without marks."""
    parts = unicodedata.normalize("NFKD", text.translate(LETTERS)).casefold()
    letters = "".join(sign for sign in parts if sign.isalnum())
    return unicodedata.normalize("NFC", letters)
