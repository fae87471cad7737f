"""Regions of interest: K parts of an image that the local term compares with findings.

    method = build("otsu")
    masks = extract(method, pixels, mask=None, count=4)      # bool [k, S, S], k <= 4
    weights, valid = to_grid(masks, grid=14, count=4)        # [4, 14, 14], [4]
    regions = pool(patches, weights[None])                   # [1, 4, D]

To add a method: one file with a callable like `RegionMethod`, a line in `METHODS`, its name in
`study.RegionsSection.method`. The tests run over every entry of `METHODS`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hica.errors import ConfigurationError
from hica.regions.base import RegionMethod
from hica.regions.grid import Grid
from hica.regions.hf_sam import HfSam
from hica.regions.masks import MaskComponents
from hica.regions.otsu import Otsu
from hica.regions.sam import Sam
from hica.regions.superpixels import Superpixels
from hica.regions.token_cut import PatchFeatures, TokenCut
from hica.regions.unet import UNet
from hica.towers.pooling import pool, to_grid

__all__ = ["METHODS", "RegionMethod", "build", "extract", "pool", "to_grid"]

METHODS: dict[str, Callable[..., RegionMethod]] = {
    "masks": MaskComponents,
    "otsu": Otsu,
    "superpixels": Superpixels,
    "grid": Grid,
    "sam": Sam,
    "hf-sam": HfSam,
    "token-cut": TokenCut,
    "unet": UNet,
}


def build(
    method: str,
    *,
    checkpoint: Path | str | None = None,
    weights: Path = Path(),
    hubs: bool = False,
    model: str = "vit_b",
    patches: PatchFeatures | None = None,
    tower: str = "",
    device: str = "cpu",
) -> RegionMethod:
    """Make the region method of `[regions]`.

    Args:
        method: A key of `METHODS`.
        checkpoint: Weights below `weights`; for `sam`, `hf-sam` and `unet`. Of `hf-sam` it is a
            folder, or where there is none the hub's `OWNER/NAME@COMMIT`.
        weights: The site's folder of weights.
        hubs: Whether what is pinned may be fetched from a hub; for `hf-sam` only.
        model: Architecture of the checkpoint; for `sam` only.
        patches: Features by a tower that is not being trained; for `token-cut` only.
        tower: Fingerprint of that tower; for `token-cut` only.
        device: Where the model runs; for `sam`, `hf-sam` and `unet`.

    Raises:
        ConfigurationError: An unknown method, or one without the checkpoint or the tower it needs.
    """
    if method not in METHODS:
        raise ConfigurationError(
            f"regions.method: unknown method {method!r}; known methods: {', '.join(METHODS)}"
        )
    if method == "token-cut":
        if patches is None:
            raise ConfigurationError(
                'regions.method = "token-cut" cuts the patches of an image tower, and none was '
                "given; choose another regions.method"
            )
        return TokenCut(patches, tower)
    if method not in ("sam", "hf-sam", "unet"):
        return METHODS[method]()
    if checkpoint is None:
        raise ConfigurationError(
            f'regions.checkpoint: regions.method = "{method}" needs the path of its weights'
        )
    if method == "hf-sam":
        return HfSam(checkpoint, weights, hubs, device)
    if method == "unet":
        return UNet(weights / checkpoint, device=device)
    return Sam(weights / checkpoint, model=model, device=device)


def extract(method: RegionMethod, pixels: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """Find at most `count` regions of a preprocessed image; the same call gives the same regions.

    `pixels` are uint8 [3, S, S], `mask`, of the same geometry, is the site's, bool [S, S], or None.
    Gives bool [k, S, S], k <= `count`, largest region first; k may be 0.
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
