"""Regions by intensity: what is clearly darker or brighter than the rest (multi-Otsu)."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from hica.regions.base import Mask, Pixels, RegionMethod, components, contrast, grey


@dataclass(frozen=True)
class Otsu(RegionMethod):
    """Components of the darkest and the brightest of three intensity classes, by contrast.

    Thresholds after Liao, Chen and Chung, "A fast algorithm for multilevel thresholding", 2001.

    Attributes:
        smoothing: σ of the Gaussian that removes speckle first, as a share of the image's side.
        bridge: Bridges narrower than about twice this, as a share of the image's side, are cut: in
            ultrasound they tie a lesion to its shadow.
        min_area: Smallest region, as a share of the image.
        max_area: Largest region, as a share of the image.
        max_border: A region that holds more than this share of the image's border pixels is a
            frame or the empty background, not tissue.
    """

    smoothing: float = 1 / 128
    bridge: float = 1 / 64
    min_area: float = 0.01
    max_area: float = 0.6
    max_border: float = 0.5

    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        image = grey(pixels)
        smooth = ndimage.gaussian_filter(image, self.smoothing * image.shape[0])
        levels = smooth.round().astype(np.uint8)
        if len(np.unique(levels)) < 3:  # nothing to tell apart: three classes need three levels
            return []
        thresholds = threshold_multiotsu(levels, classes=3)  # type: ignore[no-untyped-call]
        classes = np.digitize(levels, thresholds, right=True)  # a threshold is of the class below
        radius = max(1, round(self.bridge * image.shape[0]))
        dark, bright = (
            ndimage.binary_opening(classes == level, iterations=radius) for level in (0, 2)
        )
        found = components(dark) + components(bright)
        regions = [region for region in found if self._plausible(region)]
        return sorted(regions, key=lambda region: -contrast(image, region))[:count]

    def _plausible(self, region: Mask) -> bool:
        return (
            self.min_area <= region.mean() <= self.max_area
            and _border_share(region) <= self.max_border
        )


def _border_share(region: Mask) -> float:
    """Share of the image's border pixels that lie in the region."""
    border = np.ones_like(region)
    border[1:-1, 1:-1] = False
    return float(region[border].mean())
