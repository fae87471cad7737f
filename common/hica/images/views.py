"""Views: a few augmented copies of an image, fixed once so that what they give can be cached."""

import hashlib
import math
import random
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Masks = TypeVar("Masks", Tensor, None)

MIN_SCALE = 0.6
"""Least share of the image's area in a crop: a lesion at the edge is rarely lost."""
MAX_STRETCH = 4 / 3
MAX_GAIN = 0.2
"""Gain and contrast are drawn from 1 ± this."""


ROOM = 0.3
"""Share of a region's longer side that a view of it shows around it."""
SMALLEST = 0.25
"""Least side of such a view, as a share of the image's: a smaller one shows nothing but blur."""


def make_views(
    pixels: Tensor, masks: Masks, count: int, key: str, zoomed: int | None = None
) -> tuple[Tensor, Masks]:
    """Make `count` views V: the image, its mirror image, then random crops.

    A crop takes 0.6 to 1 of the area at an aspect of 3:4 to 4:3, is mirrored half of the time and
    changes gain and contrast by up to 20 %. Draws depend on `key` alone (for example the image's
    hash and the study's seed), so views are the same on any machine and fewer views are the first
    of more.

    Pixels are uint8 `[3, S, S]`; masks, bool `[K, S, S]` or None, are moved as they are. The view
    at the place `zoomed` is cut to the first mask, the largest region (the whole image where there
    is none), and takes the place of a random one.

    Returns:
        uint8 `[V, 3, S, S]` and bool `[V, K, S, S]` (None without masks).
    """
    draws = random.Random(hashlib.sha256(key.encode()).digest())
    planes = pixels.new_zeros(0, *pixels.shape[1:], dtype=torch.bool) if masks is None else masks
    views, moved = [pixels, pixels.flip(-1)], [planes, planes.flip(-1)]
    for _ in range(count - 2):
        box, flip = _draw_box(draws, pixels.shape[-1]), draws.random() < 0.5
        gain, contrast = (draws.uniform(1 - MAX_GAIN, 1 + MAX_GAIN) for _ in range(2))
        view = _crop(pixels, box, flip, "bilinear")
        middle = view.mean(dim=(1, 2), keepdim=True)
        view = gain * (middle + contrast * (view - middle))
        views.append(view.round().clamp(0, 255).to(torch.uint8))
        moved.append(_crop(planes, box, flip, "nearest-exact") > 0)
    if zoomed is not None:
        box = _box_around(planes, pixels.shape[-1])
        views.insert(zoomed, _crop(pixels, box, False, "bilinear").round().to(torch.uint8))
        moved.insert(zoomed, _crop(planes, box, False, "nearest-exact") > 0)
    return torch.stack(views[:count]), None if masks is None else torch.stack(moved[:count])


def _draw_box(draws: random.Random, side: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop."""
    area = draws.uniform(MIN_SCALE, 1)
    aspect = math.exp(draws.uniform(-math.log(MAX_STRETCH), math.log(MAX_STRETCH)))
    width = min(side, round(side * math.sqrt(area * aspect)))
    height = min(side, round(side * math.sqrt(area / aspect)))
    # `randint` may draw otherwise in another Python; `random` may not.
    top = int(draws.random() * (side - height + 1))
    left = int(draws.random() * (side - width + 1))
    return top, left, height, width


def _box_around(planes: Tensor, side: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a square around the first plane; of all where it is empty."""
    if not len(planes) or not planes[0].any():
        return 0, 0, side, side
    rows, columns = torch.where(planes[0].any(dim=1))[0], torch.where(planes[0].any(dim=0))[0]
    high, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    length = min(side, max(round((1 + 2 * ROOM) * max(high, wide)), round(SMALLEST * side)))
    top = int(rows[0]) + high // 2 - length // 2
    left = int(columns[0]) + wide // 2 - length // 2
    return min(max(top, 0), side - length), min(max(left, 0), side - length), length, length


def _crop(planes: Tensor, box: tuple[int, int, int, int], flip: bool, mode: str) -> Tensor:
    """Cut a box out of `[P, S, S]` and stretch it to S × S again, as float."""
    top, left, height, width = box
    cut = planes[:, None, top : top + height, left : left + width].float()
    square = F.interpolate(cut, size=planes.shape[-2:], mode=mode)[:, 0]
    return square.flip(-1) if flip else square
