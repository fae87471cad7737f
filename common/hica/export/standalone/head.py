"""From features of the image tower to class logits. Needs torch and safetensors.

    from head import Head
    head = Head()
    logits = head(features)                                     # one view, [B, C]
    logits = head(features, features_of_the_mirror_image)       # as HiCA predicts

`head.safetensors` holds what is added to the tower: `classes` [C, D] and `findings` [M, D], unit
rows; `centre` and `gain` [D]; `bias` [C]; in some models `projection.*` and `adapter.*`.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional


class Head:
    """Logits are cosines to the class texts, over a temperature, and one intercept a class."""

    def __init__(self, folder: Path | None = None) -> None:
        """Read `head.safetensors` and `head.json`, by default those beside this file."""
        folder = folder or Path(__file__).parent
        self.arrays: dict[str, Tensor] = load_file(folder / "head.safetensors")
        settings = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        self.class_names: list[str] = settings["classes"]
        self.finding_names: list[str] = settings["findings"]
        self.temperature: float = settings["temperature"]
        self.unit_features: bool = settings["unit_features"]

    def embedding(self, features: Tensor) -> Tensor:
        """Unit rows [B, D]."""
        arrays = self.arrays
        if "projection.weight" in arrays:
            bias = arrays.get("projection.bias")
            features = functional.linear(features, arrays["projection.weight"], bias)
        if "adapter.down.weight" in arrays:
            features = features + self._adapted(features)
        if self.unit_features:
            features = functional.normalize(features, dim=-1)
        return functional.normalize((features - arrays["centre"]) * arrays["gain"], dim=-1)

    def logits(self, embeddings: Tensor) -> Tensor:
        """[B, C] of unit rows [B, D]."""
        return embeddings @ self.arrays["classes"].T / self.temperature + self.arrays["bias"]

    def __call__(self, *views: Tensor) -> Tensor:
        """Logits [B, C] of features [B, W] of the same images in one view or more."""
        together = torch.stack([self.embedding(features) for features in views]).sum(dim=0)
        return self.logits(functional.normalize(together, dim=-1))

    def _adapted(self, features: Tensor) -> Tensor:
        """What a small trained layer adds: a bottleneck, at the size of the features."""
        arrays, width = self.arrays, features.shape[-1]
        size = features.norm(dim=-1, keepdim=True) / width**0.5
        scaled = functional.layer_norm(
            features, (width,), arrays["adapter.norm.weight"], arrays["adapter.norm.bias"]
        )
        inner = functional.linear(
            scaled, arrays["adapter.down.weight"], arrays["adapter.down.bias"]
        )
        outer = functional.linear(
            functional.gelu(inner), arrays["adapter.up.weight"], arrays["adapter.up.bias"]
        )
        change: Tensor = size * outer
        return change
