"""Regions from a segmentation network with weights on the site's disk: a plain U-Net.

Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation",
2015, with padded convolutions and batch norm. Names of the weights are those of the widely used
github.com/milesial/Pytorch-UNet, for a depth of L (4 there) and widths w₀ … w_L of any size:

| weights | what |
|---|---|
| `inc.double_conv` | two 3×3 convolutions, channels → w₀ → w₀ |
| `down{i}.maxpool_conv.1.double_conv`, i = 1 … L | after 2×2 max pooling, w_{i-1} → w_i → w_i |
| `up{j}.up`, j = 1 … L | transposed 2×2 convolution with stride 2, u_j → w_{L-j}; or bilinear |
| `up{j}.conv.double_conv` | of the skip (w_i) and, after it, the result of `up`: → m_j → u_{j+1} |
| `outc.conv` | 1×1 convolution, w₀ → classes |

In each `double_conv`, `0` and `3` are the convolutions (with or without bias), `1` and `4` the
norms, each followed by ReLU. All widths are read from the weights. `mask_values`, which training
there saves beside them, is left out: regions are all classes but the first.
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
from hica.towers.reading import load_weights, read_weights

FIRST = "inc.double_conv.0.weight"
"""A weight that every one of them has."""


@dataclass(frozen=True)
class UNet:
    """Connected components of what the network takes for foreground, the most certain first.

    The network sees channels in 0..1, grey or RGB by its first layer. With one output channel a
    pixel is foreground where its sigmoid exceeds ½; with more it is of the class of highest
    softmax, class 0 being background, and every other class has components of its own. Components
    are ordered by the mean probability of their class. The network is loaded at first use and kept.

    Attributes:
        checkpoint: Weights, as `hica.towers.reading` reads them.
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
        state = read_weights(self.checkpoint, own=[FIRST])
        shapes = _shapes(state)
        if shapes is None:
            raise WeightsError(
                f"{self.checkpoint}: not a plain U-Net of grey or RGB images; regions.checkpoint "
                'must have the weights of github.com/milesial/Pytorch-UNet, "inc.double_conv.0" to '
                '"outc.conv"'
            )
        with torch.random.fork_rng(devices=[]):  # its random start must not move the caller's seed
            network = Network(shapes)
        name = (
            f"a U-Net of widths {list(shapes.widths)}, {shapes.channels} channels and "
            f"{shapes.classes} classes"
        )
        load_weights(network, state, self.checkpoint, name)
        return network.eval().to(self.device)

    def _require_checkpoint(self) -> None:
        if not self.checkpoint.is_file():
            raise WeightsError(
                f"{self.checkpoint}: no such file; put the state dict of a U-Net there and set "
                "regions.checkpoint to its path below the site's folder of weights, or choose "
                "another regions.method"
            )


@dataclass(frozen=True)
class Shapes:
    """Everything that is different from one plain U-Net to another."""

    channels: int
    widths: tuple[int, ...]
    """w₀ … w_L, of the way down."""
    middles: tuple[int, ...]
    """m₁ … m_L: between the two convolutions of each step up."""
    ups: tuple[int, ...]
    """u₂ … u_{L+1}: of the result of each step up."""
    classes: int
    has_bias: bool
    bilinear: bool

    @classmethod
    def usual(
        cls, channels: int, widths: list[int], classes: int, has_bias: bool = False
    ) -> "Shapes":
        """With transposed convolutions, and widths that are halved in every step up."""
        back = tuple(widths[-2::-1])
        return cls(channels, tuple(widths), back, back, classes, has_bias, bilinear=False)


class DoubleConv(nn.Module):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, middle: int, outputs: int, has_bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((inputs, middle), (middle, outputs)):
            conv = nn.Conv2d(before, after, 3, padding=1, bias=has_bias)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, inputs, h, w] to [B, outputs, h, w]."""
        result: Tensor = self.double_conv(hidden)
        return result


class Network(nn.Module):
    """The U-Net of the module's table."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        widths, bias = shapes.widths, shapes.has_bias
        self.channels = shapes.channels
        self.depth = len(widths) - 1
        self.inc = DoubleConv(self.channels, widths[0], widths[0], bias)
        below = widths[-1]
        for i in range(1, len(widths)):
            double = DoubleConv(widths[i - 1], widths[i], widths[i], bias)
            down = nn.Sequential(nn.MaxPool2d(2), double)
            self.add_module(f"down{i}", nn.ModuleDict({"maxpool_conv": down}))
            skip, middle, out = widths[-i - 1], shapes.middles[i - 1], shapes.ups[i - 1]
            up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            if not shapes.bilinear:
                up = nn.ConvTranspose2d(below, skip, 2, stride=2)
            inputs = skip + (below if shapes.bilinear else skip)
            conv = DoubleConv(inputs, middle, out, bias)
            self.add_module(f"up{i}", nn.ModuleDict({"up": up, "conv": conv}))
            below = out
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(below, shapes.classes, 1)})

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


def _shapes(state: dict[str, Tensor]) -> Shapes | None:
    """What the weights' shapes say; None if it is no U-Net."""
    downs, firsts, seconds = [FIRST], list[str](), list[str]()
    while (name := f"down{len(downs)}.maxpool_conv.1.double_conv.0.weight") in state:
        firsts.append(f"up{len(downs)}.conv.double_conv.0.weight")
        seconds.append(f"up{len(downs)}.conv.double_conv.3.weight")
        downs.append(name)
    kernels = [state.get(name) for name in (*downs, *firsts, *seconds, "outc.conv.weight")]
    if any(kernel is None or kernel.ndim != 4 for kernel in kernels):
        return None
    widths, middles, ups = (
        tuple(len(state[name]) for name in names) for names in (downs, firsts, seconds)
    )
    channels = state[FIRST].shape[1]
    return (
        None
        if channels not in (1, 3)
        else Shapes(
            channels,
            widths,
            middles,
            ups,
            len(state["outc.conv.weight"]),
            has_bias=FIRST.replace("weight", "bias") in state,
            bilinear="up1.up.weight" not in state and "up1.up.bias" not in state,
        )
    )
