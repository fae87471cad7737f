"""Text that is burned into a picture: a light detector, for a warning.

It finds rows of bright strokes of one height, as scanners write them. It does not read, and misses
handwriting, faint or very large letters, single letters and text on a bright ground.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

CONTRAST = 60
"""Grey levels by which a stroke is brighter than what is around it."""
HEIGHTS = (5, 60)
"""Of letters, in pixels."""
GLYPHS = 5
"""Letters in a row that make a text."""
OUTSIDE = 0.0005
"""Share of bright pixels outside the areas of an ultrasound that is a text."""


def looks_lettered(grey: npt.NDArray[np.uint8], areas: Sequence[Sequence[float]] = ()) -> bool:
    """Whether a picture, uint8 `[H, W]`, seems to hold text.

    `areas`: left, top, right, bottom, as shares of width and height, of what shows tissue, where
    the header says so: if much is bright outside of it, that is taken for text.
    """
    if areas:
        outside = np.ones(grey.shape, dtype=bool)
        height, width = grey.shape
        for left, top, right, bottom in areas:
            rows = slice(max(round(top * height), 0), max(round(bottom * height), 0))
            outside[rows, max(round(left * width), 0) : max(round(right * width), 0)] = False
        if (grey[outside] > 128).sum() > OUTSIDE * grey.size:
            return True
    around = ndimage.grey_opening(grey, size=(7, 7))
    strokes = grey.astype(np.int16) - around > CONTRAST
    labels, _ = ndimage.label(strokes, np.ones((3, 3)))
    return _has_row(
        (rows.start, rows.stop, columns.start, columns.stop)
        for rows, columns in ndimage.find_objects(labels)
        if HEIGHTS[0] <= rows.stop - rows.start <= HEIGHTS[1]
        and columns.stop - columns.start <= 1.5 * (rows.stop - rows.start)
    )


def _has_row(boxes: Iterable[tuple[int, int, int, int]]) -> bool:
    """Whether enough boxes (top, bottom, left, right) stand side by side on one line."""
    rows: dict[int, list[tuple[int, int, int, int]]] = {}
    for box in sorted(boxes, key=lambda box: box[2]):
        for shift in (-1, 0, 1):  # letters of one line end within a pixel of each other
            row = rows.get(box[1] + shift)
            if row and _follows(row[-1], box):
                row.append(box)
                if len(row) >= GLYPHS:
                    return True
                break
        else:
            rows[box[1]] = [box]
    return False


def _follows(last: tuple[int, int, int, int], box: tuple[int, int, int, int]) -> bool:
    """Whether a letter may stand next to another: of nearly its height, and near."""
    height, other = box[1] - box[0], last[1] - last[0]
    gap = box[2] - last[3]
    return 2 * abs(height - other) <= max(height, other) and -2 <= gap <= 1.5 * max(height, other)
