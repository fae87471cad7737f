"""Weights of a tower: drawn from a seed, read from a file, checked and hashed."""

import hashlib
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hica.errors import WeightsError
from hica.images.cache import file_sha256
from hica.printable import listed

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


def check_hash(path: Path, sha256: str | None) -> None:
    """Check that a weights file exists and, where a hash is pinned, that it is the one meant.

    Raises:
        WeightsError: Names the file, both hashes and the remedy.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; put it there or correct model.checkpoint"
        )
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{path}: these are other weights than the study's\n"
            f"  expected sha256 {sha256}\n  found sha256    {found}\n"
            "ask the coordinator for the file, or correct model.sha256 in the study"
        )


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a state dict, floating point as float32.

    From `.safetensors`, or anything `torch.load(weights_only=True)` reads; a state dict under the
    key `state_dict` or `model`, and names that start with `module.`, are unwrapped. `sha256` is the
    expected hash of the file, in hex.

    Raises:
        WeightsError: The file is missing, of another hash, or not a state dict.
    """
    check_hash(path, sha256)
    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a weights file that can be read ({error}); "
            "save a plain state dict as .safetensors, .pth or .pt"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    tensors = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    if not tensors:
        raise WeightsError(f"{path}: holds no state dict; save model.state_dict() instead")
    return {
        name.removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in state.items()
    }


def load_weights(module: nn.Module, state: dict[str, Tensor], source: Path, name: str) -> None:
    """Load a state dict whole: nothing missing, nothing left over.

    Raises:
        WeightsError: Names the file, the model and the first keys or shapes that do not match.
    """
    own = module.state_dict()
    both = own.keys() & state.keys()
    differing = {
        # Old checkpoints lack BatchNorm's step counters, which nothing here reads.
        "missing": {key for key in own if not key.endswith("num_batches_tracked")} - both,
        "unexpected": state.keys() - both,
        "of another shape": {key for key in both if own[key].shape != state[key].shape},
    }
    problems = [f"{kind}: {listed(sorted(keys))}" for kind, keys in differing.items() if keys]
    if problems:
        raise WeightsError(
            f"{source}: not weights of {name}\n  " + "\n  ".join(problems) + "\n"
            "use the model these weights were made for, or other weights"
        )
    module.load_state_dict(state, strict=False)
