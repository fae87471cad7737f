"""Regions from segment-anything (Kirillov et al., 2023) with weights on the site's disk.

The ViT-B model costs about half a minute an image on a CPU, so callers compute regions once and
cache them.
"""

import pickle
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hica.errors import WeightsError
from hica.images.cache import file_sha256
from hica.regions.base import Mask, Pixels

MODEL_OF_WIDTH = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


@dataclass(frozen=True)
class Sam:
    """Automatic masks of segment-anything, the most certain first.

    Masks are ordered by predicted IoU times stability, then area. The model is loaded at first
    use and kept.

    Attributes:
        checkpoint: State dict of a segment-anything model (`sam_vit_b_01ec64.pth`, MedSAM, ...).
        model: Which model the weights are of: `vit_b`, `vit_l` or `vit_h`.
        device: Where the model runs, `cpu` or `cuda`.
        points_per_side: The image is prompted at a grid of this side; time grows with its square.
        min_predicted_iou: Masks the model itself rates lower are dropped.
        min_stability: Masks that change more than this with the cutoff are dropped.

    Raises:
        WeightsError: At first use, when the checkpoint is missing, unreadable or of another
            model.
    """

    checkpoint: Path = field(repr=False)
    model: str = "vit_b"
    device: str = field(default="cpu", repr=False)
    points_per_side: int = 8
    min_predicted_iou: float = 0.88
    min_stability: float = 0.95

    @cached_property
    def version(self) -> str:
        """See `RegionMethod.version`; holds the hash of the weights in place of their path."""
        self._require_checkpoint()
        return f"{self!r} {file_sha256(self.checkpoint)} v1"

    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        found = [item for item in self._generator.generate(pixels) if item["area"] > 0]
        found.sort(
            key=lambda item: (-item["predicted_iou"] * item["stability_score"], -item["area"])
        )
        return [item["segmentation"] for item in found[:count]]

    @cached_property
    def _generator(self) -> Any:
        from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

        weights = self._read_weights()
        with torch.random.fork_rng(devices=[]):  # its random start must not move the caller's seed
            network = sam_model_registry[self.model]()
        try:
            network.load_state_dict(weights)
        except RuntimeError:
            raise WeightsError(
                f"{self.checkpoint}: not the weights of a segment-anything {self.model} model "
                f"(regions.model); {_remedy(weights)}"
            ) from None
        return SamAutomaticMaskGenerator(
            network.to(self.device),
            points_per_side=self.points_per_side,
            pred_iou_thresh=self.min_predicted_iou,
            stability_score_thresh=self.min_stability,
            min_mask_region_area=0,  # more than 0 needs OpenCV
        )

    def _read_weights(self) -> dict[str, Tensor]:
        self._require_checkpoint()
        try:
            weights = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
            weights = None
        if not isinstance(weights, dict):
            raise WeightsError(
                f"{self.checkpoint}: not a PyTorch state dict, or cut short; download it again and "
                "compare its sha256 (regions.checkpoint)"
            )
        return weights

    def _require_checkpoint(self) -> None:
        if not self.checkpoint.is_file():
            raise WeightsError(
                f"{self.checkpoint}: no such file; download the segment-anything {self.model} "
                "checkpoint and set regions.checkpoint to its path, or choose another "
                "regions.method"
            )


def _remedy(weights: dict[str, Tensor]) -> str:
    """What to change, guessed from the width of the image encoder in the checkpoint."""
    positions = weights.get("image_encoder.pos_embed")
    model = MODEL_OF_WIDTH.get(positions.shape[-1]) if positions is not None else None
    if model is None:
        return "set regions.checkpoint to an original segment-anything checkpoint"
    return f'its width is that of {model}: set regions.model = "{model}"'
