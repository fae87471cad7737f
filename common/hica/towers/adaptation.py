"""AdaptedTower: what of an image tower is trained, and what before it is frozen and cached.

| train | trained | cached per image | a step runs |
|---|---|---|---|
| `adapter` | a bottleneck on the features | features of image and regions | the bottleneck |
| `last-N` | the last N blocks and the head | output of the blocks before | N blocks |
| `lora` | low-rank factors beside frozen weights | – | the whole tower |
| `full` | every weight | – | the whole tower |
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hica.errors import ConfigurationError
from hica.towers.attention import split_attention
from hica.towers.base import ImageTower
from hica.towers.lora import add_lora
from hica.towers.pooling import pool
from hica.towers.weights import draw_weights


class Adapter(nn.Module):
    """Residual bottleneck x + |x|·W₂ gelu(W₁ norm(x)), the identity until it is trained.

    After CLIP-Adapter (Gao et al., 2021). |x| is the row's root mean square: the change is relative
    to the feature, so that one learning rate suits towers of any scale, and the zero row of an
    absent region stays zero.
    """

    def __init__(self, dim: int, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.norm = nn.LayerNorm(dim)
            self.down = nn.Linear(dim, width)
            self.up = nn.Linear(width, dim)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)
        draw_weights(self, seed)

    def forward(self, features: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        size = features.norm(dim=-1, keepdim=True) / features.shape[-1] ** 0.5
        change: Tensor = self.up(functional.gelu(self.down(self.norm(features))))
        adapted: Tensor = features + size * change
        return adapted


class AdaptedTower(nn.Module):
    """An image tower in which a part is trained; built by `adapt`.

    `frozen` computes what can be cached, `forward` the rest:

        hidden = model.frozen(pixels, weights)            # once per image and view
        pooled, regions = model(hidden, weights)          # in every step
    """

    def __init__(self, tower: ImageTower, last: int, adapter: Adapter | None = None) -> None:
        """Wrap a tower; the parameters that require gradients are what is trained.

        `last` blocks are run in every step: 0 for none, the tower's depth for all. An adapter is
        trained on the tower's features and needs `last` = 0.
        """
        super().__init__()
        self.tower = tower
        self.last = last
        self.adapter = adapter
        self.train()

    @property
    def cache_id(self) -> str | None:
        """Part of the cache key of what `frozen` returns; None where nothing is worth caching."""
        if self.last == self.tower.depth:
            return None
        return f"{self.tower.fingerprint}/before-last-{self.last}"

    @torch.no_grad()
    def frozen(self, pixels: Tensor, weights: Tensor) -> Tensor:
        """What the trained part starts from, of uint8 pixels [B, 3, S, S].

        Region weights [B, K, g, g] lie on the patch grid. The result is with an adapter the
        features of the images and their regions, [B, 1 + K, D]; else the hidden state before the
        last blocks; else, where all blocks are run, the pixels.
        """
        if self.last == self.tower.depth:
            return pixels
        images = self.tower.preprocess.normalise(pixels)
        if self.adapter is None:
            return self.tower.prefix(images, self.last)
        pooled, patches = self.tower(images)
        return torch.cat([pooled.unsqueeze(1), pool(patches, weights)], dim=1)

    def forward(self, hidden: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images and their regions, differentiably in the trained weights.

        `hidden` is the result of `frozen`, in any floating point type; with an adapter the region
        weights [B, K, g, g] are already in it. Gives images [B, D] and regions [B, K, D] (zero
        where a region is absent), not normalised.
        """
        if self.adapter is not None:
            features = self.adapter(hidden.float())
            return features[:, 0], features[:, 1:]
        all_blocks = self.last == self.tower.depth
        hidden = self.tower.preprocess.normalise(hidden) if all_blocks else hidden.float()
        return self.tower.regional(hidden, self.last, weights)

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Every patch in the joint space, for pictures: uint8 [B, 3, S, S] to [B, N, D]."""
        patches: Tensor = self.tower(self.tower.preprocess.normalise(pixels)).patches
        if self.adapter is not None:
            patches = self.adapter(patches)
        return patches

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name, in the order of the names."""
        return {
            name: parameter
            for name, parameter in sorted(self.named_parameters())
            if parameter.requires_grad
        }

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the modules that own trained weights, BatchNorm excepted.

        Everything else always runs as at inference: BatchNorm on its stored statistics, which a few
        shots cannot estimate, and no dropout, which would make cached and fresh features differ.
        """
        super().train(mode)
        for module in self.tower.modules():
            owns = any(weight.requires_grad for weight in module.parameters(recurse=False))
            module.training = mode and owns and not isinstance(module, _BatchNorm)
        return self


def adapt(
    tower: ImageTower,
    train: str,
    *,
    adapter_width: int = 128,
    lora_rank: int = 8,
    lora_alpha: float = 8.0,
    seed: int = 0,
) -> AdaptedTower:
    """Choose what of a tower is trained; changes the tower.

    `train` is `adapter` (a bottleneck of `adapter_width`), `last-N`, `lora` (factors of rank r,
    whose product is scaled by α / r) or `full`. New weights are drawn from `seed`.

    Raises:
        ConfigurationError: N exceeds the tower's depth, the tower has nothing LoRA can be put on,
            or `train` is none of these.
    """
    tower.requires_grad_(False)
    if train == "adapter":
        return AdaptedTower(tower, 0, Adapter(tower.dim, adapter_width, seed))
    if train == "lora":
        split_attention(tower)
        add_lora(tower, lora_rank, lora_alpha, seed)
        return AdaptedTower(tower, tower.depth)
    last = tower.depth if train == "full" else _number_of_blocks(train)
    for module in tower.last_blocks(last):
        module.requires_grad_(True)
    return AdaptedTower(tower, last)


def _number_of_blocks(train: str) -> int:
    kind, _, number = train.partition("-")
    if kind != "last" or not number.isdecimal() or int(number) < 1:
        raise ConfigurationError(
            f'model.train = "{train}": use adapter, last-N (N from 1 to the number of blocks), '
            "lora or full"
        )
    return int(number)
