"""Overlays: what is drawn over an image as a model sees it, and images as parts of a page."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor
from scipy.ndimage import binary_erosion

Pixels = NDArray[np.uint8]

COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b4c9a", "#8a8a00", "#0072b2")
"""Of regions, in turn; told apart also by the colour-blind."""
SIDE = 320
"""Of a drawn picture, in pixels; shown at half of that, so sharp on fine screens."""
BORDER = 4
"""Width of a region's outline, in pixels of the drawn picture."""


def png_bytes(pixels: Pixels) -> bytes:
    """The image [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def png_uri(pixels: Pixels) -> str:
    """The image [H, W, 3] as the data URI of a PNG."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode()


def jpeg_uri(pixels: Pixels) -> str:
    """The image [H, W, 3] as the data URI of a JPEG, which is smaller."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def resized(pixels: Pixels, side: int) -> Pixels:
    """The image at side x side pixels, bicubic."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def outlined(pixels: Pixels, masks: NDArray[np.bool_], side: int = SIDE) -> Pixels:
    """The image [S, S, 3] with the border of each region [k, S, S] in its own colour."""
    picture = resized(pixels, side).copy()
    for index, mask in enumerate(masks):
        large = Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255)
        grown = np.asarray(large.resize((side, side), Image.Resampling.BILINEAR)) > 127
        border = grown & ~binary_erosion(grown, iterations=BORDER)  # beyond the frame is outside
        picture[border] = ImageColor.getrgb(COLOURS[index % len(COLOURS)])
    return picture


def heat_map(pixels: Pixels, likeness: NDArray[np.floating[Any]]) -> Pixels:
    """Likeness [g, g] laid over pixels [S, S, 3]: the warmer, the more like the text.

    Colours begin where a patch is no more like the text than like the others, and end at the most
    likely patch: a map of an image that is like it nowhere stays grey.
    """
    from matplotlib import colormaps

    side = len(pixels)
    rows = Image.fromarray(np.asarray(likeness, dtype=np.float32)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    positive = np.clip(np.asarray(rows), 0, None)
    strength = positive / max(float(positive.max()), 0.05)
    colours = colormaps["inferno"](strength)[..., :3] * 255
    grey = pixels.mean(axis=2, keepdims=True)
    shown = (1 - 0.6 * strength[..., None]) * grey + 0.6 * strength[..., None] * colours
    return np.asarray(np.round(shown), dtype=np.uint8)
