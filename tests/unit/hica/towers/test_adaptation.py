import pytest
import torch
from torch import nn

from hica.errors import ConfigurationError
from hica.towers import load_image_tower
from hica.towers.adaptation import AdaptedTower, Adapter, adapt
from hica.towers.pooling import pool

# With GroupNorm, with BatchNorm, with attention.
TOWERS = ["tiny", "timm/test_efficientnet", "timm/test_vit"]
WAYS = ["adapter", "last-1", "last-2", "lora", "full"]


@pytest.fixture(params=TOWERS)
def name(request) -> str:
    return request.param


@pytest.fixture(params=WAYS)
def train(request) -> str:
    return request.param


def build(name: str, train: str, **arguments) -> AdaptedTower:
    return adapt(load_image_tower(name, image_size=64), train, lora_rank=2, **arguments)


def batch(model: AdaptedTower, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
    grid = model.tower.grid
    weights = torch.rand(count, 3, grid, grid, generator=generator)
    weights[0, 2] = 0.0  # an absent region
    return pixels, weights


@torch.enable_grad()
def one_step(model: AdaptedTower) -> None:
    model.train()
    pixels, weights = batch(model)
    optimiser = torch.optim.SGD(model.trainable().values(), lr=0.1)
    pooled, regions = model(model.frozen(pixels, weights), weights)
    (pooled.square().mean() + regions.square().mean()).backward()
    optimiser.step()


@torch.no_grad()
def test_at_the_start_it_is_the_tower(name, train) -> None:
    model = build(name, train)
    pixels, weights = batch(model)
    reference = load_image_tower(name, image_size=64)
    expected, patches = reference(reference.preprocess.normalise(pixels))
    pooled, regions = model(model.frozen(pixels, weights), weights)
    assert torch.allclose(pooled, expected, atol=1e-5)
    assert torch.allclose(regions, pool(patches, weights), atol=1e-5)
    assert torch.allclose(model.patch_features(pixels), patches, atol=1e-5)


@torch.no_grad()
def test_after_a_step_the_frozen_part_still_fits(name, train) -> None:
    model = build(name, train)
    pixels, weights = batch(model)
    cached = model.frozen(pixels, weights)
    before = model(cached, weights)[0]
    one_step(model)
    assert torch.equal(model.frozen(pixels, weights), cached)
    pooled, regions = model(cached, weights)
    assert not torch.allclose(pooled, before, atol=1e-6)
    model.eval()
    assert torch.equal(model(cached, weights)[0], pooled)
    assert torch.all(regions[0, 2] == 0)


def test_a_step_changes_what_is_trained_and_nothing_else(name, train) -> None:
    model = build(name, train)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one_step(model)
    trained = model.trainable()
    assert list(trained) == sorted(trained) and trained
    for key, value in model.state_dict().items():
        if key in trained:
            assert trained[key].grad is not None, f"no gradient at {key}"
        else:
            assert torch.equal(value, before[key]), f"{key} changed"
    assert any(not torch.equal(value, before[key]) for key, value in trained.items())


def test_what_is_trained(name) -> None:
    full, last = build(name, "full").trainable(), build(name, "last-1").trainable()
    assert list(full) == sorted(key for key, _ in build(name, "full").named_parameters())
    assert set(last) < set(full)
    assert all(".lora_" in key for key in build(name, "lora").trainable())
    assert all(key.startswith("adapter.") for key in build(name, "adapter").trainable())


def test_batch_norm_statistics_never_move(train) -> None:
    model = build("timm/test_efficientnet", train)
    statistics = {key: value.clone() for key, value in model.named_buffers()}
    assert any("running_mean" in key for key in statistics)
    for _ in range(2):
        one_step(model)
    for key, value in model.named_buffers():
        assert torch.equal(value, statistics[key])


def test_training_mode_reaches_what_is_trained_only() -> None:
    model = build("timm/test_vit", "last-1")
    model.tower.trunk.patch_drop = nn.Dropout(0.5)
    model.train()
    assert model.training and not model.tower.trunk.patch_drop.training
    last, first = model.tower.blocks[-1], model.tower.blocks[0]
    assert last.attn.qkv.training and not first.attn.qkv.training  # Opacus' hooks ask for this
    model.eval()
    assert not last.attn.qkv.training


def test_what_is_cached(name) -> None:
    models = {train: build(name, train) for train in WAYS}
    pixels, weights = batch(models["full"])
    dim = models["full"].tower.dim
    assert models["adapter"].frozen(pixels, weights).shape == (2, 4, dim)
    for train in ("lora", "full"):
        assert models[train].frozen(pixels, weights) is pixels
        assert models[train].cache_id is None
    ids = [models[train].cache_id for train in ("adapter", "last-1", "last-2")]
    assert len(set(ids)) == 3
    assert all(cache_id.startswith(models["full"].tower.fingerprint) for cache_id in ids)


def test_training_all_blocks_caches_nothing() -> None:
    model = build("tiny", "last-4")
    pixels, weights = batch(model)
    assert model.cache_id is None and model.frozen(pixels, weights) is pixels
    assert set(model.trainable()) == set(build("tiny", "full").trainable())


@torch.no_grad()
@pytest.mark.parametrize("train", ["adapter", "last-2"])
def test_half_precision_caches_are_read(train) -> None:
    model = build("tiny", train)
    pixels, weights = batch(model)
    hidden = model.frozen(pixels, weights)
    pooled, regions = model(hidden.half(), weights)
    assert pooled.dtype == regions.dtype == torch.float32
    assert torch.allclose(pooled, model(hidden, weights)[0], atol=1e-2)


def test_seed_decides_the_adapter() -> None:
    state = torch.random.get_rng_state()
    one, two, other = (build("tiny", "adapter", seed=seed).adapter.down for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, other.weight)


def test_adapter_is_the_identity_then_relative_to_its_input() -> None:
    adapter = Adapter(dim=16, width=4, seed=0)
    rows = torch.randn(3, 16)
    assert torch.equal(adapter(rows), rows)
    nn.init.normal_(adapter.up.weight)
    once, scaled = adapter(rows).detach(), adapter(1000 * rows).detach() / 1000
    assert torch.allclose(scaled, once, atol=1e-3 * float(once.abs().max()))
    assert not torch.allclose(adapter(rows), rows, atol=0.1)
    assert torch.all(adapter(torch.zeros(1, 16)) == 0)


@pytest.mark.parametrize("train", ["last-0", "last-x", "head", "last"])
def test_unknown_way(train) -> None:
    with pytest.raises(ConfigurationError, match=f'"{train}": use adapter, last-N'):
        build("tiny", train)


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r'"last-5": tiny has 4 blocks; use last-1 to'):
        build("tiny", "last-5")
