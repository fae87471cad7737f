"""A file to what the network takes, as a transform of MONAI's `Compose`."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .preprocess import colours, read_settings


class LoadPictured:
    """Replaces the path under `image` by colours [3, S, S]; the path stays under `path`."""

    def __init__(self, folder: str) -> None:
        """`folder` has `preprocessing.json`."""
        self.settings = read_settings(Path(folder))

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """One case."""
        path = str(data["image"])
        with Image.open(path) as picture:
            pixels = torch.from_numpy(colours(picture, self.settings).copy())
        return {**data, "image": pixels, "path": path}
