"""From a study to its region method: where configuration meets the methods' parameters."""

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hica.below import below
from hica.regions import RegionMethod, build
from hica.regions.base import Pixels
from hica.regions.token_cut import PatchFeatures
from hica.study import Study
from hica.towers import ImageTower


def region_method(
    study: Study, weights: Path, tower: ImageTower, device: torch.device, hubs: bool = False
) -> RegionMethod:
    """The study's region method; `device` is where the tower is and the method's own model goes.

    The tower is the one that was loaded, before anything of it is trained. `hubs` is whether what
    is pinned may be fetched from a hub.

    Raises:
        ConfigurationError: A method without the weights it needs.
        WeightsError: The path of its weights leads out of the folder `weights`.
    """
    regions = study.regions
    cuts = regions.method == "token-cut"
    if regions.checkpoint is not None:
        below(weights, regions.checkpoint, "regions.checkpoint")
    return build(
        regions.method,
        checkpoint=regions.checkpoint,
        weights=weights,
        hubs=hubs,
        model=regions.model,
        patches=_frozen_patches(tower, device) if cuts else None,
        tower=tower.fingerprint,
        device=str(device),
    )


def _frozen_patches(tower: ImageTower, device: torch.device) -> PatchFeatures:
    """Patch features of the tower as it is now: a copy, as the tower itself is trained in place."""
    frozen = copy.deepcopy(tower).eval()

    @torch.no_grad()
    def patches(pixels: Pixels) -> NDArray[np.float32]:
        images = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).to(device)
        features = frozen(frozen.preprocess.normalise(images)).patches[0]
        result: NDArray[np.float32] = features.float().cpu().numpy()
        return result

    return patches
