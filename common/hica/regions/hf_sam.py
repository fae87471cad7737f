"""Regions from a model of the segment-anything family in Hugging Face's layout.

Segment-anything (Kirillov et al., 2023) and its retrained kin (MedSAM, Ma et al., 2024), SAM-HQ (Ke
et al., 2023) and SAM 2 (Ravi et al., 2024): whatever transformers offers for mask generation. A
ViT-B costs about half a minute an image on a CPU, so callers compute regions once and cache them.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hica import hub
from hica.errors import WeightsError
from hica.hub import stay_offline
from hica.images.cache import file_sha256, key_of
from hica.model_folder import look_through
from hica.regions.base import Mask, Pixels

KEY = "regions.checkpoint"
# Of a model on the hub the second is fetched where there is none of the first.
WEIGHTS = (("*.json", "model*.safetensors"), ("*.json", "pytorch_model*.bin"))


@dataclass(frozen=True)
class HfSam:
    """Masks at a grid of points, the most certain first, chosen as by segment-anything itself.

    Masks are ordered by predicted IoU times stability, then area; of those whose boxes overlap much
    the one of highest predicted IoU stays. The model is loaded at first use and kept. Weights are
    read as safetensors or with `weights_only`; code that a model brings along is never run.

    Attributes:
        checkpoint: A folder below `weights`, else the hub's `OWNER/NAME@COMMIT`.
        weights: The site's folder of weights.
        hubs: Whether the latter may be fetched; else it must be in the hub's cache.
        device: Where the model runs, `cpu` or `cuda`.
        points_per_side: The image is prompted at a grid of this side; time grows with its square.
        min_predicted_iou: Masks the model itself rates lower are dropped.
        min_stability: Masks that change more than this with the cutoff are dropped.
        max_overlap: IoU of two boxes above which they are taken for one thing found twice.

    Raises:
        WeightsError: At first use, when the model is neither a folder nor can be fetched, or is
            no segment-anything.
    """

    checkpoint: Path | str = field(repr=False)
    weights: Path = field(default=Path(), repr=False)
    hubs: bool = field(default=False, repr=False)
    device: str = field(default="cpu", repr=False)
    points_per_side: int = 8
    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    max_overlap: float = 0.7

    @cached_property
    def version(self) -> str:
        """See `RegionMethod.version`; holds the hash of the model's files in place of its name."""
        kinds = dict.fromkeys(kind for kinds in WEIGHTS for kind in kinds)
        files = sorted(path for kind in kinds for path in self._folder.glob(kind))
        digest = key_of(*(f"{path.name} {file_sha256(path)}" for path in files))
        return f"{self!r} {digest} v1"

    @torch.inference_mode()
    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        processor, network = self._loaded
        inputs = processor(images=pixels, return_tensors="pt", input_data_format="channels_last")
        images = inputs["pixel_values"].to(self.device)
        points = _grid(self.points_per_side).to(images) * images.shape[-1]
        predicted = network(
            pixel_values=images,
            input_points=points.reshape(1, -1, 1, 2),
            input_labels=torch.ones(1, len(points), 1, dtype=torch.long, device=images.device),
            multimask_output=True,
        )
        rated = predicted.iou_scores[0].flatten()  # (R), R = 3 masks for each point
        likely = rated > self.min_predicted_iou
        if not likely.any():  # nothing there to enlarge
            return []
        logits = processor.post_process_masks(
            [predicted.pred_masks[0].flatten(0, 1)[likely].unsqueeze(1)],
            inputs["original_sizes"],
            reshaped_input_sizes=inputs.get("reshaped_input_sizes"),  # SAM 2 has and needs none
            binarize=False,
        )[0].squeeze(1)  # (R', S, S)
        return self._choose(logits.cpu(), rated[likely].cpu(), count)

    def _choose(self, logits: Tensor, rated: Tensor, count: int) -> list[Mask]:
        """Filter and order masks: logits [R, S, S] and predicted IoU [R]."""
        from torchvision.ops import masks_to_boxes, nms  # loads for seconds; few studies need it

        stability = (logits > 1).sum((1, 2)) / (logits > -1).sum((1, 2)).clamp(min=1)
        masks = logits > 0
        area = masks.sum((1, 2))
        kept = (stability >= self.min_stability) & (area > 0)
        masks, rated, stability, area = masks[kept], rated[kept], stability[kept], area[kept]
        single = nms(masks_to_boxes(masks), rated, self.max_overlap).tolist()
        single.sort(key=lambda index: (-float(rated[index] * stability[index]), -int(area[index])))
        return [masks[index].numpy() for index in single[:count]]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The image processor and the network."""
        from transformers import AutoImageProcessor, AutoModelForMaskGeneration

        stay_offline()
        source: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with torch.random.fork_rng(devices=[]):  # must not move the caller's seed
                processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                    self._folder, **source
                )
                network, loading = AutoModelForMaskGeneration.from_pretrained(
                    self._folder, dtype=torch.float32, output_loading_info=True, **source
                )
            problem = ", ".join(sorted(loading["missing_keys"])[:4])
        except Exception as error:  # transformers raises many kinds
            problem = _first_line(error)
        if problem:
            raise WeightsError(
                f"{self._folder}: not a whole model that makes masks ({problem}); it needs "
                "config.json, preprocessor_config.json and model.safetensors of a SAM, MedSAM, "
                "SAM-HQ or SAM 2; correct regions.checkpoint"
            )
        return processor, network.eval().to(self.device)

    @cached_property
    def _folder(self) -> Path:
        """The model's files: the site's own folder, else the hub's, fetched or from its cache."""
        folder = self.weights / self.checkpoint
        if folder.is_dir():
            look_through(folder, KEY)
            return folder
        try:
            return hub.model(str(self.checkpoint), WEIGHTS, self.hubs, KEY)
        except WeightsError as error:
            name = str(self.checkpoint).partition("@")[0]
            raise WeightsError(
                f"{KEY}: {folder} is no folder; put a folder with config.json, "
                "preprocessor_config.json and model.safetensors there, for example where there is "
                f"a network by: hf download {name} --local-dir FOLDER. As a name of a hub: {error}"
            ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _grid(side: int) -> Tensor:
    """Centres (x, y) of the cells of a square grid on the unit square, [side², 2], row by row."""
    centres = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(centres, centres).flip(1)
