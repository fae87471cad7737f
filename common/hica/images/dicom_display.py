"""From the stored values of a DICOM frame to grey levels: PS3.3, C.11.1 and C.11.2.

Stored values → modality (rescale or lookup table) → values of interest (lookup table or window) →
grey, low values bright in MONOCHROME1. A frame's own values come before those of all frames.
"""

from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from hica.images.dicom_tables import first_table
from hica.images.dicom_tags import has_comma, number, numbers, places, wrong
from hica.images.grey import OWN_RANGE, Array, Mask, range_notes, to_8_bit

VOI, TRANSFORMATION = "FrameVOILUTSequence", "PixelValueTransformationSequence"
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


class Grey(NamedTuple):
    """A frame in grey levels."""

    pixels: Array
    """uint8 `[H, W]`."""
    way: str
    notes: tuple[str, ...]


def grey(stored: Array, dataset: Dataset, frame: int, padding: Mask | None) -> Grey:
    """Show a frame of one sample per pixel, `[H, W]`.

    Raises:
        RefusedError: A tag holds no number; names it.
    """
    values = modality(stored, dataset, frame)
    shown = _of_interest(values, dataset, frame, padding)
    if dataset.PhotometricInterpretation != "MONOCHROME1":
        return shown
    pixels = 255 - shown.pixels  # low values are bright
    if padding is not None:
        pixels[padding] = 0
    if values.dtype.kind == "f":
        pixels[~np.isfinite(values)] = 0
    return shown._replace(pixels=pixels)


def modality(stored: Array, dataset: Dataset, frame: int) -> Array:
    """Stored values as the modality means them, such as Hounsfield units."""
    for place in places(dataset, TRANSFORMATION, frame):
        table = first_table(place, "ModalityLUTSequence", dataset, stored)
        if table is not None:
            return table.of(stored)
        if numbers(place, "RescaleSlope") or numbers(place, "RescaleIntercept"):
            slope = number(place, "RescaleSlope", 1.0)
            if not slope:
                raise wrong("RescaleSlope", "is 0, which makes all values the same")
            intercept = number(place, "RescaleIntercept", 0.0)
            return stored if (slope, intercept) == (1, 0) else stored * slope + intercept
    return stored


def _of_interest(values: Array, dataset: Dataset, frame: int, padding: Mask | None) -> Grey:
    """Through a lookup table, else a window, else by the own range."""
    notes: tuple[str, ...] = ()
    for place in places(dataset, VOI, frame):
        table = first_table(place, "VOILUTSequence", dataset, values)
        if table is not None:
            pixels = to_8_bit(table.of(values), 0.0, table.full, padding)
            return Grey(pixels, "its lookup table", _one_of(place.VOILUTSequence, "lookup tables"))
        widths, centres = numbers(place, "WindowWidth"), numbers(place, "WindowCenter")
        if widths and not centres:
            notes = ("its window has a width but no centre, and is not used",)
        elif widths and widths[0] <= 0:
            notes = (f"its window has a width of {widths[0]:g}, and is not used",)
        elif widths:
            windowed, more = _windowed(values, place, centres[0], widths[0])
            pixels = to_8_bit(windowed, 0.0, 1.0, padding)
            return Grey(pixels, "its first window", more + _one_of(widths, "windows"))
    if dataset.get("BitsStored") == 1:
        return Grey(to_8_bit(values, 0.0, 1.0, padding), "black and white", notes)
    notes += range_notes(values, padding)
    return Grey(to_8_bit(values, padding=padding), OWN_RANGE, notes)


def _windowed(
    values: Array, place: Dataset, centre: float, width: float
) -> tuple[Array, tuple[str, ...]]:
    """Grey 0..1 through a window (C.11.2.1.2 and C.11.2.1.3), and notes."""
    notes: tuple[str, ...] = ()
    if has_comma(place, "WindowWidth") or has_comma(place, "WindowCenter"):
        notes = ("a comma in its window is read as a decimal point",)
    function = str(place.get("VOILUTFunction") or "LINEAR").upper()
    if function not in FUNCTIONS:
        notes += (f"its window function {function[:20]!r} is not known; LINEAR is used",)
    values = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - centre) / width)), notes
    # The standard has no LINEAR window narrower than 1; on fractions it is meant to be exact.
    if function != "LINEAR_EXACT" and width >= 1:
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return np.clip((values - centre) / width + 0.5, 0, 1), notes


def _one_of(several: object, what: str) -> tuple[str, ...]:
    count = len(several)  # type: ignore[arg-type]
    return (f"the first of {count} {what} is used",) if count > 1 else ()
