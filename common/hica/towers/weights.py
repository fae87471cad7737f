"""Weights of a tower: what is wanted, drawn from a seed, hashed. Files: `hica.towers.reading`."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Wanted:
    """What is wanted of an image tower beside its name: see `hica.towers.load_image_tower`."""

    pretrained: str | None
    checkpoint: Path | None
    sha256: str | None
    pad_type: str
    image_size: int | None
    mean: Colour | None
    std: Colour | None
    seed: int
    weights: Path = Path()
    hubs: bool = False
    pinned: bool = False
    """Of a text tower: whether one that is not pinned is refused."""
    interpolation: str | None = None
    resize: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Who says what of the transform; see `hica.towers.preprocessing`."""


@torch.no_grad()
def draw_weights(module: nn.Module, seed: int) -> None:
    """Draw a module's weights from `seed` alone, bit for bit the same on every machine.

    torch's own normal generator differs between vector instruction sets, and sites compare the
    hashes of their towers; so the numbers come from NumPy's PCG64 as uniforms of variance
    2 / fan-in for convolutions (He et al., 2015) and 1 / fan-in for other matrices. What the
    constructor filled with a constant (norms, biases, layer scales) keeps it; buffers too.
    """
    generator = np.random.default_rng(seed)
    for _, parameter in sorted(module.named_parameters()):
        if bool((parameter == parameter.flatten()[:1]).all()):
            continue
        if parameter.ndim == 1:  # torch's random biases, class tokens
            variance = 0.02**2
        else:
            gain = 2.0 if parameter.ndim == 4 else 1.0
            variance = gain * len(parameter) / parameter.numel()
        uniform = torch.from_numpy(generator.random(tuple(parameter.shape), dtype=np.float32))
        parameter.copy_((2 * uniform - 1) * math.sqrt(3 * variance))


def fingerprint(description: str, module: nn.Module) -> str:
    """SHA-256, in hex, over `description` and the name, dtype, shape and bytes of every weight."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
