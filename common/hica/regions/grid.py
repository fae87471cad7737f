"""Regions that look at nothing: equal cells of the image, the baseline of the other methods."""

import math
from dataclasses import dataclass

import numpy as np

from hica.regions.base import Mask, Pixels, RegionMethod


@dataclass(frozen=True)
class Grid(RegionMethod):
    """The first `count` cells, in reading order, of the smallest square grid that has as many."""

    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        height, width = pixels.shape[:2]
        side = math.ceil(math.sqrt(count))
        row = np.arange(height) * side // height
        column = np.arange(width) * side // width
        cell = row[:, None] * side + column  # (S, S), number of the cell in reading order
        regions = [cell == index for index in range(count)]
        return [region for region in regions if region.any()]  # more cells than pixels: some empty
