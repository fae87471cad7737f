"""Regions from the site's own masks: the connected components of what an expert drew."""

from dataclasses import dataclass

from hica.regions.base import Mask, Pixels, RegionMethod, components


@dataclass(frozen=True)
class MaskComponents(RegionMethod):
    """Connected components of the manifest's mask, largest first; no mask, no regions.

    Attributes:
        min_area: Smaller components, as a share of the image, are specks of the drawing tool and
            are dropped. The largest component always stays: a tiny lesion is still the lesion.
    """

    min_area: float = 0.001

    def __call__(self, _pixels: Pixels, mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        if mask is None:
            return []
        drawn = components(mask)
        large = [region for region in drawn if region.mean() >= self.min_area]
        return (large or drawn[:1])[:count]
