"""Images that have broken region methods, and a segment-anything small enough for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

SIDE = 64


def disc(row: int, column: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def rgb(image: np.ndarray) -> np.ndarray:
    """Grey [S, S] of any range to uint8 [S, S, 3]."""
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    """Uint8 [S, S, 3] by name."""
    noise = np.random.default_rng(0).normal(110, 25, (SIDE, SIDE))
    lesion, tiny = noise.copy(), noise.copy()
    lesion[disc(30, 24, 10)] -= 90
    tiny[40:42, 20:22] = 255
    return {
        "black": rgb(np.zeros((SIDE, SIDE))),
        "white": rgb(np.full((SIDE, SIDE), 255.0)),
        "noise": rgb(noise),
        "lesion": rgb(lesion),
        "tiny-lesion": rgb(tiny),
    }


def build_tiny_sam() -> torch.nn.Module:
    """Real prompt encoder and mask decoder; of the image encoder one narrow windowed block."""
    from segment_anything.build_sam import _build_sam

    return _build_sam(
        encoder_embed_dim=16,
        encoder_depth=1,
        encoder_num_heads=1,
        encoder_global_attn_indexes=[],
    )


@pytest.fixture(scope="session")
def tiny_sam_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_tiny_sam()
    path = tmp_path_factory.mktemp("sam") / "tiny_sam.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def tiny_sam(tiny_sam_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of random weights; meanwhile the registry's `vit_b` is the network it fits."""
    import segment_anything

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", build_tiny_sam)
    return tiny_sam_checkpoint
