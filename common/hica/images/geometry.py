"""Geometry: pictures turned upright as EXIF says, and pixels made square."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""Width and height, in pixels."""

NEARLY_SQUARE = 0.01
"""Relative difference of width and height of a pixel that is rounding in a header."""
MOST_OBLONG = 50.0
"""Pixels beyond this ratio are taken for a mistake in a header."""


def upright(pixels: Array, orientation: int) -> Array:
    """Turn `[H, W, …]` as the EXIF orientation 1 to 8 asks for; other numbers leave it as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def turned_note(orientation: int) -> tuple[str, ...]:
    """The note of a picture that was turned."""
    return ("turned upright, as its orientation tag asks",) if 1 < orientation < 9 else ()


def tiff_aspect(per_width: object, per_height: object, orientation: int) -> float:
    """Height over width of a pixel, once it is upright, from pixels per length along both sides.

    Resolutions are numbers or pairs (numerator, denominator); 1 where they are missing or broken.
    """
    try:
        wide, high = (
            float(Fraction(*number)) if isinstance(number, tuple) else float(number)  # type: ignore[arg-type]
            for number in (per_width, per_height)
        )
        aspect = aspect_of(1 / high, 1 / wide)
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0
    return 1 / aspect if orientation in (5, 6, 7, 8) else aspect


def aspect_of(height: float, width: float) -> float:
    """Height over width of a pixel; 1 where it is nearly square or no size of a pixel."""
    if not (height > 0 and width > 0 and math.isfinite(height) and math.isfinite(width)):
        return 1.0
    aspect = height / width
    if abs(aspect - 1) < NEARLY_SQUARE or max(aspect, 1 / aspect) > MOST_OBLONG:
        return 1.0
    return aspect


def square_size(size: Size, aspect: float) -> Size:
    """Size in square pixels: the finer side stays as it is, so that nothing is lost."""
    width, height = size
    if aspect > 1:
        return width, round(height * aspect)
    return round(width / aspect), height


def resized(pixels: Array, size: Size) -> Array:
    """Resample a uint8 picture between its pixels, a bool mask by the nearest one."""
    if pixels.shape[1::-1] == size:
        return pixels
    if pixels.dtype == np.bool_:
        image = Image.fromarray(pixels.astype(np.uint8))
        return np.asarray(image.resize(size, Image.Resampling.NEAREST)) > 0
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
