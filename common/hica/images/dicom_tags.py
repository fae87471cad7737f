"""Values of a DICOM data set as they are needed: numbers, of a frame, or an error with the tag."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset

from hica.images.refusals import OR_OUT, RefusedError

DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d{1,2}|\d{4,})")
"""A number with a comma for its point; with three digits after it, it could be thousands."""
REMEDY = "export the file again, or have the tag mended"


def named(keyword: str) -> str:
    """How the standard writes a tag, such as `Window Center (0028,1050)`."""
    tag = tag_for_keyword(keyword) or 0
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def wrong(keyword: str, why: str) -> RefusedError:
    """A tag that cannot be used."""
    return RefusedError(f"the DICOM tag {named(keyword)} {why}; {REMEDY}, {OR_OUT}")


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The finite numbers of a tag; none where it is absent or empty.

    Raises:
        RefusedError: It holds something else.
    """
    parsed = [_number(keyword, text) for text in _texts(dataset, keyword)]
    return tuple(number for number in parsed if math.isfinite(number))


def number(dataset: Dataset, keyword: str, default: float | None = None) -> float:
    """The first number of a tag; `default` where it is absent or empty.

    Raises:
        RefusedError: It holds something else, or nothing and there is no default.
    """
    found = numbers(dataset, keyword)
    if found:
        return found[0]
    if default is None:
        raise wrong(keyword, "is empty" if keyword in dataset else "is missing")
    return default


def count(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number of at least 0.

    Raises:
        RefusedError: See `number`; or it is not whole, or negative.
    """
    found = number(dataset, keyword, default)
    if found < 0 or found % 1:
        raise wrong(keyword, f"is {found:g}, which is no count")
    return int(found)


def has_comma(dataset: Dataset, keyword: str) -> bool:
    """Whether a number is written with a decimal comma."""
    return any("," in text for text in _texts(dataset, keyword))


def places(dataset: Dataset, sequence: str, frame: int) -> Iterator[Dataset]:
    """Where a frame's values of a macro may stand: its own group, the shared one, the data set."""
    for groups, at in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        items = dataset.get(groups) or []
        if at < len(items):
            yield from (items[at].get(sequence) or [])[:1]
    yield dataset


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    """The values of a tag as they are written, without empty ones."""
    if keyword not in dataset:
        return []
    try:
        value: Any = dataset[keyword].value
    except Exception:  # pydicom refuses to convert it: what stands in the file, then
        value = dataset.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.split("\\")
    values = value if isinstance(value, Iterable) else [value]
    texts = (str(item).strip(" \0") for item in values if item is not None)
    return [text for text in texts if text]


def _number(keyword: str, text: str) -> float:
    try:
        return float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        raise wrong(keyword, f"holds {text[:40]!r}, which is no number") from None
