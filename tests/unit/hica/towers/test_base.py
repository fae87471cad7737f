"""What holds for every image tower, whatever it is made of."""

import pytest
import torch

from hica.errors import ConfigurationError
from hica.towers import ImageTower, load_image_tower

# One of each family; timm's own miniature models and small images keep these tests fast.
NAMES = [
    "tiny",
    "timm/test_efficientnet",
    "timm/test_resnet",
    "timm/test_convnext",
    "timm/test_vit",
    "timm/test_mambaout",
    "timm/mobilenetv3_small_050",
]


def build(name: str, **arguments) -> ImageTower:
    return load_image_tower(name, image_size=64, **arguments)


@pytest.fixture(scope="module", params=NAMES)
def tower(request) -> ImageTower:
    return build(request.param, seed=1)


@pytest.fixture(scope="module")
def images(tower: ImageTower) -> torch.Tensor:
    side = tower.preprocess.size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_shapes(tower: ImageTower, images: torch.Tensor) -> None:
    pooled, patches = tower(images)
    assert pooled.shape == (2, tower.dim)
    assert patches.shape == (2, tower.grid**2, tower.dim)
    assert torch.isfinite(pooled).all() and torch.isfinite(patches).all()


@torch.no_grad()
def test_prefix_and_suffix_at_every_split_are_the_tower(tower, images) -> None:
    whole = tower(images)
    for last in {0, 1, 2, tower.depth - 1, tower.depth} & set(range(tower.depth + 1)):
        parts = tower.suffix(tower.prefix(images, last), last)
        assert torch.equal(parts.pooled, whole.pooled)
        assert torch.equal(parts.patches, whole.patches)
    assert tower.prefix(images, tower.depth) is images


def test_gradients_of_the_suffix_reach_the_last_blocks_and_no_others(tower, images) -> None:
    for last in {1, min(2, tower.depth), tower.depth}:
        tower.zero_grad(set_to_none=True)
        hidden = tower.prefix(images, last).detach()
        pooled, patches = tower.suffix(hidden, last)
        (pooled.square().sum() + patches.square().sum()).backward()
        reached = {name for name, weight in tower.named_parameters() if weight.grad is not None}
        inside = {
            id(weight) for module in tower.last_blocks(last) for weight in module.parameters()
        }
        assert reached == {name for name, w in tower.named_parameters() if id(w) in inside}


@pytest.mark.parametrize("last", [-1, 99])
def test_split_outside_the_tower_names_the_range(tower, images, last) -> None:
    for call in (tower.prefix, tower.suffix):
        with pytest.raises(ConfigurationError, match=f"use last-1 to last-{tower.depth}, or full"):
            call(images, last)
    with pytest.raises(ConfigurationError, match=tower.name):
        tower.last_blocks(last)


def test_same_arguments_same_tower_other_seed_other_tower(tower) -> None:
    state = torch.random.get_rng_state()
    again = build(tower.name, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert again.fingerprint == tower.fingerprint
    assert build(tower.name, seed=2).fingerprint != tower.fingerprint


def test_fingerprint_depends_on_the_transform(tower) -> None:
    other = build(tower.name, seed=1, mean=(0.1, 0.2, 0.3))
    assert other.preprocess.mean == (0.1, 0.2, 0.3)
    assert other.fingerprint != tower.fingerprint
