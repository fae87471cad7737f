"""Regions of interest: K parts of an image that the local term compares with findings.

    method = build("otsu")
    masks = extract(method, pixels, mask=None, count=4)      # bool [k, S, S], k <= 4
    weights, valid = to_grid(masks, grid=14, count=4)        # [4, 14, 14], [4]
    regions = pool(patches, weights[None])                   # [1, 4, D]

To add a method: one file with a callable like `RegionMethod`, a line in `METHODS`, its name in
`study.RegionsSection.method`. The tests run over every entry of `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hica.errors import ConfigurationError
from hica.regions.base import RegionMethod
from hica.regions.grid import Grid
from hica.regions.masks import MaskComponents
from hica.regions.otsu import Otsu
from hica.regions.pooling import pool, to_grid
from hica.regions.sam import Sam
from hica.regions.superpixels import Superpixels

__all__ = ["METHODS", "RegionMethod", "build", "extract", "pool", "to_grid"]

METHODS: dict[str, Callable[..., RegionMethod]] = {
    "masks": MaskComponents,
    "otsu": Otsu,
    "superpixels": Superpixels,
    "grid": Grid,
    "sam": Sam,
}


def build(
    method: str, *, checkpoint: Path | None = None, model: str = "vit_b", device: str = "cpu"
) -> RegionMethod:
    """Make the region method of `[regions]`.

    Args:
        method: A key of `METHODS`.
        checkpoint: Weights on disk; for `sam` only.
        model: Architecture of the checkpoint; for `sam` only.
        device: Where the model runs; for `sam` only.

    Raises:
        ConfigurationError: An unknown method, or `sam` without a checkpoint.
    """
    if method not in METHODS:
        raise ConfigurationError(
            f"regions.method: unknown method {method!r}; known methods: {', '.join(METHODS)}"
        )
    if method != "sam":
        return METHODS[method]()
    if checkpoint is None:
        raise ConfigurationError(
            'regions.checkpoint: regions.method = "sam" needs the path of a segment-anything '
            "checkpoint"
        )
    return Sam(checkpoint, model=model, device=device)


def extract(method: RegionMethod, pixels: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """Find at most `count` regions of a preprocessed image; the same call gives the same regions.

    Args:
        method: From `build`.
        pixels: uint8 [3, S, S].
        mask: The site's mask of the same geometry, bool [S, S], or None.
        count: The largest number K of regions.

    Returns:
        bool [k, S, S], k <= K, largest region first; k may be 0.
    """
    found = method(
        np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()),
        None if mask is None else mask.cpu().numpy(),
        count,
    )
    if not found:
        return torch.zeros((0, *pixels.shape[1:]), dtype=torch.bool)
    found.sort(key=lambda region: -int(region.sum()))  # stable: equals keep the method's order
    return torch.from_numpy(np.stack(found))
