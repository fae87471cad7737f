"""What a region method is, and the measurements that several methods share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Grey = NDArray[np.float64]


class RegionMethod(Protocol):
    """A deterministic way to find the parts of an image worth comparing with findings."""

    @property
    def version(self) -> str:
        """Name, revision and every parameter that changes the result: part of cache keys."""
        return f"{self!r} v1"

    def __call__(self, pixels: Pixels, mask: Mask | None, count: int, /) -> list[Mask]:
        """Find at most `count` regions of a preprocessed image, uint8 [S, S, 3].

        `mask` is the site's own mask of it, bool [S, S], or None. Gives masks, bool [S, S], none of
        them empty; most important first.
        """


def grey(pixels: Pixels) -> Grey:
    """Mean of the three channels, float64 [S, S] in 0..255."""
    result: Grey = pixels.mean(axis=-1, dtype=np.float64)
    return result


def components(mask: Mask) -> list[Mask]:
    """Connected components (8 neighbours), largest first; equals in reading order."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]  # label 0 is the background
    return [labels == 1 + index for index in np.argsort(-areas, kind="stable")]


def contrast(image: Grey, mask: Mask) -> float:
    """|mean inside - mean of the surroundings|, in grey levels.

    The surroundings are a band around the mask as wide as 1/16 of the image; a mask that leaves
    no surroundings has contrast 0.
    """
    width = max(1, mask.shape[0] // 16)
    band = ndimage.maximum_filter(mask, size=2 * width + 1) & ~mask
    if not band.any():
        return 0.0
    return float(abs(image[mask].mean() - image[band].mean()))
