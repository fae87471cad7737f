"""Pictures: images as the study's model is given them, small, large, and the outlines of regions.

They lie in the site's cache below the hash of the image's file, so that `withdraw` deletes them
with everything else that was made of it.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hica.errors import DataError
from hica.images.cache import image_key
from hica.images.pixels import VERSION, pixels_of
from hica.regions import extract
from hica.storage import write_atomically
from hica_client.review.desk import Desk, Row

SMALL = 132
"""Side of a square in a gallery, in pixels."""
LARGE = 512
COLOURS = ("#ffd23f", "#3bceac", "#5aa9ff", "#ff7ac6", "#c3f73a", "#ff9f1c")
"""Of the regions of an image, the largest first; then from the beginning."""
LINE = 3
"""Width of an outline, in pixels."""


def small(desk: Desk, row: Row) -> bytes:
    """JPEG of an image for a gallery.

    Raises:
        DataError: It cannot be read.
        StorageError: The cache cannot be written.
    """
    return _kept(desk, row, "small", lambda: _jpeg(_square(desk, row), SMALL, 80))


def large(desk: Desk, row: Row) -> bytes:
    """JPEG of an image to look at; raises as `small`."""
    return _kept(desk, row, "large", lambda: _jpeg(_square(desk, row), LARGE, 92))


def region_masks(desk: Desk, row: Row) -> NDArray[np.bool_]:
    """The regions of an image [k, S, S], as the study's method finds them; raises as `small`."""
    pipeline = desk.pipeline
    key = f"{pipeline.regions_key(desk.held(row))}-masks"
    kept = pipeline.cache.get(key)
    if kept is None:
        found = pixels_of(desk.held(row), pipeline.tower.tower.preprocess, pipeline.cache)
        masks = extract(pipeline.method, found.pixels, found.mask, pipeline.region_count)
        kept = {"masks": masks}
        pipeline.cache.put(key, kept)
    return np.asarray(kept["masks"].to(torch.bool).numpy())


def outline(desk: Desk, row: Row, place: int) -> bytes:
    """PNG, see-through but for the outline of one region.

    Raises:
        DataError: The image cannot be read, or has no such region.
    """
    masks = region_masks(desk, row)
    check_place(masks, place)
    mask = masks[place]
    shape = Image.fromarray(mask.astype(np.uint8) * 255).resize((LARGE, LARGE))
    inside = np.asarray(shape) > 127
    edge = inside & ~ndimage.binary_erosion(inside, iterations=LINE)
    colour = COLOURS[place % len(COLOURS)]
    drawn = np.zeros((LARGE, LARGE, 4), dtype=np.uint8)
    drawn[edge] = [*(int(colour[at : at + 2], 16) for at in (1, 3, 5)), 255]
    data = io.BytesIO()
    Image.fromarray(drawn).save(data, "PNG")
    return data.getvalue()


def check_place(masks: NDArray[np.bool_], place: int) -> None:
    """Check that an image has a region.

    Raises:
        DataError: It has not.
    """
    if not 0 <= place < len(masks):
        raise DataError(f"this image has {len(masks)} regions: load the page again")


def _square(desk: Desk, row: Row) -> Image.Image:
    pipeline = desk.pipeline
    found = pixels_of(desk.held(row), pipeline.tower.tower.preprocess, pipeline.cache)
    return Image.fromarray(found.pixels.permute(1, 2, 0).numpy())


def _jpeg(image: Image.Image, side: int, quality: int) -> bytes:
    data = io.BytesIO()
    image.resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=quality)
    return data.getvalue()


def _kept(desk: Desk, row: Row, size: str, draw: Callable[[], bytes]) -> bytes:
    """A picture from the cache, drawn where it is not there yet."""
    image = desk.sha256(row)
    how = desk.pipeline.tower.tower.preprocess
    key = image_key(image, "review", size, VERSION, how)
    path = desk.site.data.cache / image[:2] / f"{key}.jpg"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        data = draw()
        write_atomically(path, data, mode=0o600, durable=False)
        return data
