"""Regions from a segmentation network with weights on the site's disk: a plain U-Net.

Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation",
2015, with padded convolutions and batch norm. Names of the weights are those of the widely used
github.com/milesial/Pytorch-UNet, for a depth of L (4 there) and widths w₀ … w_L of any size:

| weights | what |
|---|---|
| `inc.double_conv` | two 3×3 convolutions, channels → w₀ → w₀ |
| `down{i}.maxpool_conv.1.double_conv`, i = 1 … L | after 2×2 max pooling, w_{i-1} → w_i → w_i |
| `up{j}.up`, j = 1 … L | transposed 2×2 convolution with stride 2, w_{i+1} → w_i, i = L - j |
| `up{j}.conv.double_conv` | of the skip and, after it, the result of `up`: 2·w_i → w_i → w_i |
| `outc.conv` | 1×1 convolution, w₀ → classes |

In each `double_conv`, `0` and `3` are the convolutions (with or without bias), `1` and `4` the
norms, each followed by ReLU.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hica.errors import WeightsError
from hica.images.cache import file_sha256
from hica.regions.base import Mask, Pixels, components
from hica.towers.weights import load_weights, read_weights


@dataclass(frozen=True)
class UNet:
    """Connected components of what the network takes for foreground, the most certain first.

    The network sees channels in 0..1, grey or RGB by its first layer. With one output channel a
    pixel is foreground where its sigmoid exceeds ½; with more it is of the class of highest
    softmax, class 0 being background, and every other class has components of its own. Components
    are ordered by the mean probability of their class. The network is loaded at first use and kept.

    Attributes:
        checkpoint: State dict, `.safetensors` or what `torch.load(weights_only=True)` reads.
        device: Where the network runs, `cpu` or `cuda`.
        min_area: Smaller components, as a share of the image, are dropped.

    Raises:
        WeightsError: At first use, when the checkpoint is missing, unreadable or no plain U-Net.
    """

    checkpoint: Path = field(repr=False)
    device: str = field(default="cpu", repr=False)
    min_area: float = 0.001

    @cached_property
    def version(self) -> str:
        """See `RegionMethod.version`; holds the hash of the weights in place of their path."""
        self._require_checkpoint()
        return f"{self!r} {file_sha256(self.checkpoint)} v1"

    @torch.inference_mode()
    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        image = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1).float() / 255  # (3, S, S)
        if self._network.channels == 1:
            image = image.mean(dim=0, keepdim=True)
        logits: Tensor = self._network(image.unsqueeze(0))[0]  # (C, S, S)
        if len(logits) == 1:  # softmax over (0, x) is the sigmoid of x
            logits = torch.cat([torch.zeros_like(logits), logits])
        probability = logits.softmax(dim=0).cpu().numpy()
        winner = probability.argmax(axis=0)
        found: list[tuple[float, Mask]] = []
        for label in range(1, len(probability)):
            regions = components(winner == label)
            found += [(float(probability[label][region].mean()), region) for region in regions]
        found.sort(key=lambda item: -item[0])
        return [region for _, region in found if region.mean() >= self.min_area][:count]

    @cached_property
    def _network(self) -> "Network":
        self._require_checkpoint()
        state = read_weights(self.checkpoint)
        shapes = _shapes(state)
        if shapes is None:
            raise WeightsError(
                f"{self.checkpoint}: not a plain U-Net of grey or RGB images; regions.checkpoint "
                'must have the weights of github.com/milesial/Pytorch-UNet, "inc.double_conv.0" to '
                '"outc.conv" (bilinear=False)'
            )
        channels, widths, classes, has_bias = shapes
        with torch.random.fork_rng(devices=[]):  # its random start must not move the caller's seed
            network = Network(channels, widths, classes, has_bias)
        name = f"a U-Net of widths {widths}, {channels} channels and {classes} classes"
        load_weights(network, state, self.checkpoint, name)
        return network.eval().to(self.device)

    def _require_checkpoint(self) -> None:
        if not self.checkpoint.is_file():
            raise WeightsError(
                f"{self.checkpoint}: no such file; put the state dict of a U-Net there and set "
                "regions.checkpoint to its path below the site's folder of weights, or choose "
                "another regions.method"
            )


class DoubleConv(nn.Module):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, has_bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            conv = nn.Conv2d(width, outputs, 3, padding=1, bias=has_bias)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, inputs, h, w] to [B, outputs, h, w]."""
        result: Tensor = self.double_conv(hidden)
        return result


class Network(nn.Module):
    """The U-Net of the module's table."""

    def __init__(self, channels: int, widths: list[int], classes: int, has_bias: bool) -> None:
        super().__init__()
        self.channels = channels
        self.depth = len(widths) - 1
        self.inc = DoubleConv(channels, widths[0], has_bias)
        for i in range(1, len(widths)):
            down = nn.Sequential(nn.MaxPool2d(2), DoubleConv(widths[i - 1], widths[i], has_bias))
            self.add_module(f"down{i}", nn.ModuleDict({"maxpool_conv": down}))
            above, below = widths[-i - 1], widths[-i]
            up = nn.ConvTranspose2d(below, above, 2, stride=2)
            conv = DoubleConv(2 * above, above, has_bias)
            self.add_module(f"up{i}", nn.ModuleDict({"up": up, "conv": conv}))
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(widths[0], classes, 1)})

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, H, W] to logits [B, classes, H, W]."""
        skips = [self.inc(images)]
        for i in range(1, self.depth + 1):
            skips.append(self.get_submodule(f"down{i}.maxpool_conv")(skips[-1]))
        hidden = skips.pop()
        for j in range(1, self.depth + 1):
            skip = skips.pop()
            hidden = self.get_submodule(f"up{j}.up")(hidden)
            high, wide = (skip.shape[axis] - hidden.shape[axis] for axis in (2, 3))
            # Pooling an odd side has lost a row, for which there is nothing but a margin.
            margins = [wide // 2, wide - wide // 2, high // 2, high - high // 2]
            both = torch.cat([skip, functional.pad(hidden, margins)], dim=1)
            hidden = self.get_submodule(f"up{j}.conv")(both)
        logits: Tensor = self.outc["conv"](hidden)
        return logits


def _shapes(state: dict[str, Tensor]) -> tuple[int, list[int], int, bool] | None:
    """Channels, widths, classes and whether convolutions have a bias; None if it is no U-Net."""
    names = ["inc.double_conv.0.weight"]
    while (name := f"down{len(names)}.maxpool_conv.1.double_conv.0.weight") in state:
        names.append(name)
    weights = [state.get(name) for name in (*names, "outc.conv.weight")]
    kernels = [weight for weight in weights if weight is not None and weight.ndim == 4]
    if len(kernels) < len(weights) or kernels[0].shape[1] not in (1, 3):
        return None
    *widths, classes = (len(kernel) for kernel in kernels)
    return kernels[0].shape[1], widths, classes, "inc.double_conv.0.bias" in state
