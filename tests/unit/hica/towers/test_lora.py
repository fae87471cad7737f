import pytest
import torch
from torch import nn

from hica.errors import ConfigurationError
from hica.towers import ImageTower, load_image_tower
from hica.towers.attention import split_attention
from hica.towers.lora import LoRA, add_lora
from hica.wire.weight_names import factor_pairs

NAMES = ["tiny", "timm/test_efficientnet", "timm/test_vit", "ViT-B-32"]


def build(name: str) -> ImageTower:
    if name != "ViT-B-32":
        return load_image_tower(name, image_size=64)
    # open_clip's own ViT, its layers cut to two to keep the test fast.
    import open_clip

    from hica.images.preprocess import Preprocess
    from hica.towers.openclip_towers import OpenCLIPImageTower

    visual = open_clip.transformer.VisionTransformer(64, 16, 32, 2, 2, 4.0, output_dim=24)
    half = (0.5, 0.5, 0.5)
    return OpenCLIPImageTower(visual, name, Preprocess(64, half, half))


@pytest.fixture(params=NAMES)
def tower(request) -> ImageTower:
    return build(request.param)


def lora_tower(tower: ImageTower, rank: int = 3, alpha: float = 6.0, seed: int = 0) -> ImageTower:
    split_attention(tower)
    add_lora(tower, rank, alpha, seed)
    return tower


def test_it_changes_nothing_at_the_start(tower) -> None:
    images = torch.randn(2, 3, 64, 64)
    before = tower(images)
    after = lora_tower(tower)(images)
    assert torch.allclose(after.pooled, before.pooled, atol=1e-6)
    assert torch.allclose(after.patches, before.patches, atol=1e-6)


def test_only_the_factors_are_trained_and_pair_up(tower) -> None:
    lora_tower(tower)
    names = [name for name, weight in tower.named_parameters() if weight.requires_grad]
    pairs = factor_pairs(names)
    assert pairs and sorted(names) == sorted(name for pair in pairs for name in pair)
    weights = dict(tower.named_parameters())
    for a, b in pairs:
        assert weights[a].shape[0] == weights[b].shape[1] == 3
        assert weights[a].abs().sum() > 0 and weights[b].abs().sum() == 0


def test_gradients_reach_every_factor_after_the_first_step(tower) -> None:
    lora_tower(tower)
    optimiser = torch.optim.SGD([w for w in tower.parameters() if w.requires_grad], lr=0.1)
    for _ in range(2):  # at the first A has none: B is zero
        optimiser.zero_grad()
        pooled, patches = tower(torch.randn(2, 3, 64, 64))
        (pooled.square().mean() + patches.square().mean()).backward()
        optimiser.step()
    for name, weight in tower.named_parameters():
        assert (weight.grad is not None and weight.grad.abs().sum() > 0) == ("lora" in name), name


def test_linear_layer_is_the_sum_of_base_and_scaled_product() -> None:
    layer = LoRA(nn.Linear(5, 4), rank=2, alpha=6.0)
    nn.init.normal_(layer.lora_b.weight)
    inputs = torch.randn(3, 5)
    weight = layer.base.weight + 6.0 / 2 * layer.lora_b.weight @ layer.lora_a.weight
    expected = nn.functional.linear(inputs, weight, layer.base.bias)
    assert torch.allclose(layer(inputs), expected, atol=1e-5)


def test_convolution_is_the_sum_of_base_and_scaled_product() -> None:
    layer = LoRA(nn.Conv2d(5, 4, 1, stride=2), rank=2, alpha=6.0)
    nn.init.normal_(layer.lora_b.weight)
    inputs = torch.randn(3, 5, 6, 6)
    product = layer.lora_b.weight.flatten(1) @ layer.lora_a.weight.flatten(1)
    weight = layer.base.weight + 6.0 / 2 * product[:, :, None, None]
    expected = nn.functional.conv2d(inputs, weight, layer.base.bias, stride=2)
    assert torch.allclose(layer(inputs), expected, atol=1e-5)


def test_factors_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    one, two, other = (lora_tower(build("tiny"), seed=seed) for seed in (1, 1, 9))
    assert torch.equal(state, torch.random.get_rng_state())
    name = next(a for a, _ in factor_pairs(dict(one.named_parameters())))
    assert torch.equal(one.get_parameter(name), two.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


def test_tower_with_nothing_to_put_it_on() -> None:
    tower = load_image_tower("timm/test_resnet", image_size=64)
    for name, module in list(tower.trunk.named_modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            parent, _, child = name.rpartition(".")
            wide = nn.Conv2d(module.in_channels, module.out_channels, 3, module.stride, 1)
            setattr(tower.trunk.get_submodule(parent), child, wide)
    with pytest.raises(ConfigurationError, match="timm/test_resnet has neither attention nor 1×1"):
        add_lora(tower, 2, 2.0, 0)
