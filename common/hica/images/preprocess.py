"""Preprocess: how an image of any size becomes the square of pixels a tower expects."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """A tower's transform, the same for an image and its mask.

    The geometry is that of open_clip's `resize_mode`, pixel for pixel. `repr` of it is part of
    every cache key.
    """

    size: int
    """Side S of the square, in pixels."""
    mean: tuple[float, float, float]
    """Subtracted from the colours, which lie in 0..1."""
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize: Literal["squash", "shortest", "longest"] = "shortest"
    """`squash`: both sides to S, the aspect ratio is lost; `shortest`: the shorter side to S, the
    middle is cut out; `longest`: the longer side to S, the rest is black."""

    def pixels(self, image: Image.Image) -> Tensor:
        """Resize an RGB image to uint8 `[3, S, S]`."""
        resample = Image.Resampling[self.interpolation.upper()]
        square = np.asarray(self._square(image.convert("RGB"), resample))  # [S, S, 3]
        # Copied by numpy: torch would wake its threads for every image.
        return torch.from_numpy(square.transpose(2, 0, 1).copy())

    def mask(self, mask: npt.NDArray[np.bool_]) -> Tensor:
        """Resize a mask `[H, W]` to bool `[S, S]` as `pixels` does, by the nearest neighbour."""
        image = Image.fromarray(mask.astype(np.uint8))
        return torch.from_numpy(np.array(self._square(image, Image.Resampling.NEAREST)) > 0)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Scale uint8 pixels `[B, 3, S, S]` to the float32 the tower was trained on."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std

    def _square(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        side = self.size
        if self.resize == "squash":
            return image.resize((side, side), resample)
        width, height = image.size
        if self.resize == "shortest":
            short = min(width, height)
            resized = image.resize((side * width // short, side * height // short), resample)
            left, top = (round((length - side) / 2) for length in resized.size)
            return resized.crop((left, top, left + side, top + side))
        long = max(width, height)
        width, height = (max(1, round(length / (long / side))) for length in (width, height))
        left, top = (side - width) // 2, (side - height) // 2
        border = (left, top, side - width - left, side - height - top)
        return ImageOps.expand(image.resize((width, height), resample), border)
