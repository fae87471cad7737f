"""Regions from segment-anything (Kirillov et al., 2023) with weights on the site's disk.

The ViT-B model costs about half a minute an image on a CPU, so callers compute regions once and
cache them.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hica.errors import WeightsError
from hica.images.cache import file_sha256
from hica.regions.base import Mask, Pixels
from hica.towers.reading import load_weights, read_weights

POSITIONS = "image_encoder.pos_embed"
"""A weight that every model of the family has."""
MODEL_OF_WIDTH = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


@dataclass(frozen=True)
class Sam:
    """Automatic masks of segment-anything, the most certain first.

    Masks are ordered by predicted IoU times stability, then area. The model is loaded at first
    use and kept.

    Attributes:
        checkpoint: Weights of a segment-anything model (`sam_vit_b_01ec64.pth`, MedSAM, ...), as
            `hica.towers.reading` reads them.
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

        self._require_checkpoint()
        weights = read_weights(self.checkpoint, own=[POSITIONS])
        with torch.random.fork_rng(devices=[]):  # its random start must not move the caller's seed
            network = sam_model_registry[self.model]()
        positions = network.state_dict()[POSITIONS].shape
        if POSITIONS not in weights or weights[POSITIONS].shape != positions:
            raise WeightsError(
                f"{self.checkpoint}: not the weights of a segment-anything {self.model} model "
                f"(regions.model); {_remedy(weights)}"
            )
        load_weights(network, weights, self.checkpoint, f"segment-anything {self.model}")
        return SamAutomaticMaskGenerator(
            network.to(self.device),
            points_per_side=self.points_per_side,
            pred_iou_thresh=self.min_predicted_iou,
            stability_score_thresh=self.min_stability,
            min_mask_region_area=0,  # more than 0 needs OpenCV
        )

    def _require_checkpoint(self) -> None:
        if not self.checkpoint.is_file():
            raise WeightsError(
                f"{self.checkpoint}: no such file; download the segment-anything {self.model} "
                "checkpoint and set regions.checkpoint to its path, or choose another "
                "regions.method"
            )


def _remedy(weights: dict[str, Tensor]) -> str:
    """What to change, guessed from the width of the image encoder in the checkpoint."""
    positions = weights.get(POSITIONS)
    model = MODEL_OF_WIDTH.get(positions.shape[-1]) if positions is not None else None
    if model is None:
        return "set regions.checkpoint to an original segment-anything checkpoint"
    return f'its width is that of {model}: set regions.model = "{model}"'
