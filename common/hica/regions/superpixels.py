"""Regions by colour and place: the superpixels that stand out from their surroundings (SLIC)."""

from dataclasses import dataclass

import numpy as np
from skimage.segmentation import slic

from hica.regions.base import Mask, Pixels, RegionMethod, contrast, grey


@dataclass(frozen=True)
class Superpixels(RegionMethod):
    """The superpixels of highest contrast; none in an image of one grey level.

    SLIC after Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods",
    2012.

    Attributes:
        segments: Approximate number of superpixels to choose from.
        compactness: Weight of nearness in place against nearness in colour.
        smoothing: σ of the Gaussian before it, as a share of the image's side; without it speckle
            makes all superpixels one.
    """

    segments: int = 16
    compactness: float = 10.0
    smoothing: float = 1 / 64

    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        image = grey(pixels)
        if np.ptp(image) == 0:
            return []
        labels = slic(
            pixels,
            n_segments=self.segments,
            compactness=self.compactness,
            sigma=self.smoothing * image.shape[0],
            start_label=0,
        )
        regions = [labels == index for index in np.unique(labels)]
        return sorted(regions, key=lambda region: -contrast(image, region))[:count]
