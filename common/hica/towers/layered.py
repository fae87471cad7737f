"""A tower whose embedding holds what its last blocks see beside what its head makes of it.

Pretrained networks grow more particular to their own classes toward the end; for images far from
these, earlier blocks tell more apart (Yosinski et al., NeurIPS 2014; "hypercolumns", Hariharan et
al., CVPR 2015). Blocks also keep finer maps than the head, which small regions need.
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional

from hica.errors import ConfigurationError
from hica.towers.base import Encoded, ImageTower
from hica.towers.pooling import pool


class LayeredTower(ImageTower):
    """Outputs of the last blocks, 1 to all of a tower, then its own embedding, side by side.

    `maps` are `fine`, patches on the finest grid among the layers (coarser maps are repeated), or
    `coarse`, on the coarsest one (finer maps are averaged).

    Raises:
        ConfigurationError: The tower has fewer blocks.
    """

    def __init__(self, tower: ImageTower, layers: int, maps: str) -> None:
        super().__init__()
        if not 1 <= layers <= tower.depth:
            raise ConfigurationError(
                f"model.layers = {layers}: {tower.name} has {tower.depth} blocks; use 0 (its own "
                f"embedding alone) to {tower.depth}"
            )
        self.tower = tower
        self.layers = layers
        self.name = tower.name
        self.preprocess = tower.preprocess
        self.pad_type, self.sources = tower.pad_type, tower.sources
        side = tower.preprocess.size
        with torch.no_grad():
            found = self._layers(torch.zeros(1, 3, side, side), tower.depth)
        self._widths = tuple(layer.pooled.shape[1] for layer in found)
        self.dim = sum(self._widths)
        grids = [round(layer.patches.shape[1] ** 0.5) for layer in found]
        self.grid = max(grids) if maps == "fine" else min(grids)
        told = f"{tower.fingerprint} {layers} layers, {maps} maps"
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each layer, the head's last; they add up to `dim`."""
        return self._widths

    @property
    def blocks(self) -> list[nn.Module]:
        """The tower's."""
        return self.tower.blocks

    def stem(self, images: Tensor) -> Tensor:
        """The tower's."""
        return self.tower.stem(images)

    def head(self, hidden: Tensor) -> Encoded:
        """The tower's: the last of the layers."""
        return self.tower.head(hidden)

    def head_modules(self) -> list[nn.Module]:
        """The tower's."""
        return self.tower.head_modules()

    def suffix(self, hidden: Tensor, last: int) -> Encoded:
        """All layers, from the output of `prefix`.

        Raises:
            ConfigurationError: `last` is not in 0..depth, or too small: the layers begin before the
                cut.
        """
        self._check(last)
        layers = self._layers(hidden, last)
        pooled = torch.cat([layer.pooled for layer in layers], dim=1)
        patches = torch.cat([_on_grid(layer.patches, self.grid) for layer in layers], dim=2)
        return Encoded(pooled, patches)

    def regional(self, hidden: Tensor, last: int, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As of any tower; every layer is pooled on its own grid.

        A patch repeated on a finer grid has there, in all, the weight that it has on its own: the
        result is that of pooling `suffix`'s patches, without making them.
        """
        self._check(last)
        layers = self._layers(hidden, last)
        regions = []
        for layer in layers:
            side = round(layer.patches.shape[1] ** 0.5)
            if side < self.grid:
                regions.append(pool(layer.patches, _coarser(weights, side)))
            else:
                regions.append(pool(_on_grid(layer.patches, self.grid), weights))
        return torch.cat([layer.pooled for layer in layers], dim=1), torch.cat(regions, dim=2)

    def _layers(self, hidden: Tensor, last: int) -> list[Encoded]:
        """Every layer on its own grid, the head's last."""
        cut = self.depth - last
        outputs = {cut - 1: hidden}  # of the block before the cut; of none where there is none
        if last == self.depth:
            hidden = self.stem(hidden)
        for number, block in enumerate(self.blocks[cut:], start=cut):
            hidden = block(hidden)
            outputs[number] = hidden
        taken = range(self.depth - self.layers, self.depth)
        return [*(self._layer(outputs[number]) for number in taken), self.head(hidden)]

    def _layer(self, hidden: Tensor) -> Encoded:
        """A block's output as whole images and patches: maps [B, C, h, w] or tokens [B, T, C]."""
        if hidden.ndim == 4:
            patches = hidden.flatten(2).transpose(1, 2)
            return Encoded(patches.mean(dim=1), patches)
        before = hidden.shape[1] - self.tower.grid**2  # tokens of the whole image come first
        patches = hidden[:, before:]
        return Encoded(hidden[:, 0] if before else patches.mean(dim=1), patches)

    def _check(self, last: int) -> None:
        super()._check(last)
        if last < self.layers - 1:
            raise ConfigurationError(
                f"model.layers = {self.layers} begins before the blocks that "
                f'model.train = "last-{last}" trains; use last-{self.layers - 1} or more, adapter, '
                f"lora or full, or at most {last + 1} layers"
            )


def _coarser(weights: Tensor, side: int) -> Tensor:
    """Weights [B, K, g, g] on a grid of fewer patches: what each of them gets from `_on_grid`."""
    grid = weights.shape[-1]
    if grid % side == 0:
        return functional.avg_pool2d(weights, grid // side)  # pooling does not see a factor
    spread = _on_grid(torch.eye(side**2, device=weights.device).unsqueeze(0), grid)[0]
    return (weights.flatten(2) @ spread.to(weights.dtype)).reshape(*weights.shape[:2], side, side)


def _on_grid(patches: Tensor, grid: int) -> Tensor:
    """Patches [B, N, C] of any square grid on a grid of side g: [B, g², C]."""
    side = round(patches.shape[1] ** 0.5)
    if side == grid:
        return patches
    maps = patches.transpose(1, 2).reshape(patches.shape[0], -1, side, side)
    if side > grid:
        maps = functional.adaptive_avg_pool2d(maps, grid)
    else:
        maps = functional.interpolate(maps, size=(grid, grid), mode="nearest-exact")
    return maps.flatten(2).transpose(1, 2)
