"""Lookup tables of DICOM: of the modality, of the values of interest, and of colours."""

from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from hica.images.dicom_tags import numbers, wrong
from hica.images.grey import Array, to_8_bit

WORD = 2**16
COLOURS = ("Red", "Green", "Blue")


class Table(NamedTuple):
    """A lookup table."""

    first: int
    """The value that its first entry is for; values beyond its ends take the entry at that end."""
    entries: Array
    full: float
    """The highest entry that it could have."""

    def of(self, values: Array) -> Array:
        """The entries of `values`, of the same shape."""
        at = np.nan_to_num(values).astype(np.float64) - self.first  # unsigned numbers would wrap
        at = at.clip(0, len(self.entries) - 1)
        return np.asarray(self.entries[at.astype(np.int64)])


def first_table(place: Dataset, sequence: str, whole: Dataset, values: Array) -> Table | None:
    """The first table of a sequence of `place`; None where there is none, or it is empty.

    `whole` is the data set of the file, and `values` are those that the table is for.
    """
    items = place.get(sequence) or []
    if not len(items):
        return None
    return _table(items[0], "LUTDescriptor", "LUTData", whole, values)


def coloured(values: Array, dataset: Dataset) -> tuple[Array, tuple[str, ...]]:
    """uint8 `[H, W, 3]` of the indices `[H, W]` into the file's palette, and notes.

    Raises:
        RefusedError: There is no palette; names the tag.
    """
    stem = "{}PaletteColorLookupTable"
    tables = [
        _table(dataset, f"{stem}Descriptor".format(c), f"{stem}Data".format(c), dataset, values)
        for c in COLOURS
    ]
    whole = [table for table in tables if table is not None]
    if len(whole) == 3:
        colours = np.stack([table.of(values) for table in whole], axis=-1)
        full = max(table.full for table in whole)
        highest = max(int(table.entries.max()) for table in whole)
    elif dataset.get("SegmentedRedPaletteColorLookupTableData"):
        length, first, bits = _descriptor(dataset, f"{stem}Descriptor".format("Red"), values)
        held = values.astype(np.int64).clip(first, first + length - 1)
        colours = apply_color_lut(held, dataset)[..., :3]
        full, highest = 2.0**bits - 1, int(colours.max())
    else:
        raise wrong(f"{stem}Data".format("Red"), "is missing or empty")
    if full > 255 and highest < 256:
        return colours.astype(np.uint8), ("its palette has 8 bits, though it says 16",)
    return to_8_bit(colours, 0.0, full), ()


def _table(place: Dataset, about: str, data: str, whole: Dataset, values: Array) -> Table | None:
    """The table in two tags; None where one is absent or empty."""
    if len(numbers(place, about)) != 3 or not place.get(data):
        return None
    length, first, bits = _descriptor(place, about, values)
    entries = _entries(place.get(data), length, bits, whole)[:length]
    full = 2.0**bits - 1 if 0 < bits <= 16 else 0.0
    return Table(first, entries, max(full, float(entries.max())))


def _descriptor(place: Dataset, about: str, values: Array) -> tuple[int, int, int]:
    """Number of entries, the value of the first one, bits of an entry."""
    length, first, bits = (int(value) for value in numbers(place, about))
    if first >= WORD // 2 and values.min() < 0:  # a negative number, written as a positive one
        first -= WORD
    return length % WORD or WORD, first, bits


def _entries(data: object, length: int, bits: int, whole: Dataset) -> Array:
    """The entries, in bytes or words."""
    if isinstance(data, bytes):
        order = ">" if whole.original_encoding[1] is False else "<"
        wide = np.dtype(f"{order}u2")
        return np.frombuffer(data, wide if len(data) >= 2 * length else np.uint8)
    entries = np.asarray(data, dtype=np.int64).reshape(-1) % WORD
    if len(entries) < length and bits <= 8:  # two to a word
        entries = np.stack([entries % 256, entries // 256], axis=-1).reshape(-1)
    return entries
