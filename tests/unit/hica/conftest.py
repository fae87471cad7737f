"""Small models and examples, and float64 throughout where gradients are compared."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch.nn import functional

from hica.images.preprocess import Preprocess
from hica.method.examples import Examples
from hica.method.model import AlignmentModel
from hica.text.bank import TextBank
from hica.towers import ImageTower, load_image_tower
from hica.towers.adaptation import adapt

TEXTS = [("a", ["one"], ["x", "y"], False), ("b", ["two"], ["z"], False)]


def unit_rows(count: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def load(name: str) -> ImageTower:
    if name != "open_clip":
        return load_image_tower(name, image_size=64)
    import open_clip

    from hica.towers.openclip import OpenCLIPImageTower

    half = (0.5, 0.5, 0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = open_clip.transformer.VisionTransformer(64, 16, 32, 2, 2, 4.0, output_dim=24)
    return OpenCLIPImageTower(visual, name, Preprocess(64, half, half))


def build_model(name: str, train: str, **arguments: bool) -> AlignmentModel:
    """With every trained weight and the centre off its special start (zeros of LoRA, adapter)."""
    tower = adapt(load(name), train, adapter_width=8, lora_rank=2)
    dim = tower.tower.dim
    bank = TextBank.assemble(TEXTS, unit_rows(2, dim, 0), unit_rows(3, dim, 1))
    model = AlignmentModel(tower, bank, arguments.pop("train_text_bank", True), **arguments)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in [*model.shared().values(), model.centre]:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def build_examples(model: AlignmentModel, groups: Sequence[str], views: int = 2) -> Examples:
    """Random pixels; image 0 shows one region less, and of image 1 no region is valid."""
    tower, n = model.tower, len(groups)
    side, grid = tower.tower.preprocess.size, tower.tower.grid
    generator = torch.Generator().manual_seed(3)
    shape = (n * views, 3, side, side)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    region_weights = torch.rand(n, views, 3, grid, grid, generator=generator)
    region_weights[0, :, 2] = 0.0
    valid = torch.ones(n, views, 3, dtype=torch.bool)
    valid[0, :, 2] = False
    valid[1] = False
    hidden = tower.frozen(pixels, region_weights.flatten(0, 1))
    labels = torch.arange(n) % 2
    bank = TextBank.assemble(TEXTS, *model.unit_bank())
    return Examples(
        hidden=hidden.unflatten(0, (n, views)),
        region_weights=region_weights,
        valid=valid,
        labels=labels,
        positives=bank.positives(labels, [()] * n),
        groups=tuple(groups),
    )


@pytest.fixture(scope="session")
def new_model() -> Callable[..., AlignmentModel]:
    return build_model


@pytest.fixture(scope="session")
def new_examples() -> Callable[..., Examples]:
    return build_examples


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """What casts to float32 casts to float64 instead."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
