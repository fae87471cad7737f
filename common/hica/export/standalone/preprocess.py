"""How HiCA prepares an image for this model. Needs Pillow and NumPy.

    from preprocess import colours
    batch = colours(Image.open("image.png"))[None]      # float32 [1, 3, S, S] in 0..1

The image is an 8-bit picture as a person sees it. Of a DICOM file that is the picture after rescale
and window; of one with more bits than 8, that brought to 8. `hica-client predict` reads such files.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FILE = "preprocessing.json"
MODES = ("1", "L", "RGB")
"""Pillow's names of pictures that need no decision before they are RGB."""


def read_settings(folder: Path | None = None) -> dict[str, Any]:
    """What `preprocessing.json` says, by default that beside this file."""
    path = (folder or Path(__file__).parent) / FILE
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


def colours(image: Image.Image, settings: dict[str, Any] | None = None) -> np.ndarray:
    """Resize an image to the square that the model takes: RGB, float32 [3, S, S] in 0..1.

    Raises:
        ValueError: It has more than 8 bits, a palette or transparency.
    """
    if image.mode not in MODES:
        raise ValueError(f"a picture of mode {image.mode}: save it as 8-bit grey or RGB first")
    settings = settings or read_settings()
    resample = Image.Resampling[settings["interpolation"].upper()]
    upright = ImageOps.exif_transpose(image).convert("RGB")
    square = _square(upright, settings["size"], settings["resize"], resample)
    return (np.asarray(square, np.float32) / np.float32(255)).transpose(2, 0, 1)


def normalised(pixels: np.ndarray, settings: dict[str, Any] | None = None) -> np.ndarray:
    """Colours [..., 3, S, S] less their mean, over their standard deviation."""
    settings = settings or read_settings()
    mean, std = (np.array(settings[key], np.float32)[:, None, None] for key in ("mean", "std"))
    result: np.ndarray = (pixels - mean) / std
    return result


def _square(image: Image.Image, side: int, resize: str, resample: Image.Resampling) -> Image.Image:
    if resize == "squash":
        return image.resize((side, side), resample)
    width, height = image.size
    if resize == "shortest":  # the shorter side to S, the middle is cut out
        short = min(width, height)
        resized = image.resize((side * width // short, side * height // short), resample)
        left, top = (round((length - side) / 2) for length in resized.size)
        return resized.crop((left, top, left + side, top + side))
    long = max(width, height)  # the longer side to S, the rest is black
    width, height = (max(1, round(length / (long / side))) for length in (width, height))
    left, top = (side - width) // 2, (side - height) // 2
    border = (left, top, side - width - left, side - height - top)
    return ImageOps.expand(image.resize((width, height), resample), border)
