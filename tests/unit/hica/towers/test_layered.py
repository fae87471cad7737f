import pytest
import timm
import torch

from hica.errors import ConfigurationError
from hica.images.preprocess import Preprocess
from hica.method.model import layer_shares
from hica.towers.adaptation import adapt
from hica.towers.layered import LayeredTower
from hica.towers.pooling import pool
from hica.towers.timm_tower import TimmTower
from hica.towers.tiny import TinyImageTower

HALF = (0.5, 0.5, 0.5)


def mobilenet():
    torch.manual_seed(0)
    trunk = timm.create_model("mobilenetv2_035", num_classes=0)
    return TimmTower(trunk, "timm/mobilenetv2_035", Preprocess(64, HALF, HALF))


def vit():
    torch.manual_seed(0)
    trunk = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=3, img_size=64)
    return TimmTower(trunk, "timm/vit", Preprocess(64, HALF, HALF))


TOWERS = {"mobilenet": mobilenet, "vit": vit, "tiny": TinyImageTower}


@pytest.fixture(params=TOWERS)
def tower(request):
    return TOWERS[request.param]().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_layers_are_the_means_of_the_last_blocks_and_the_towers_own_embedding(images):
    tower = mobilenet().eval()
    layered = LayeredTower(tower, 2, "fine").eval()
    hidden, means = tower.stem(images), []
    for block in tower.blocks:
        hidden = block(hidden)
        means.append(hidden.mean(dim=(2, 3)))
    expected = torch.cat([*means[-2:], tower.head(hidden).pooled], dim=1)
    assert torch.allclose(layered(images).pooled, expected, atol=1e-6)
    assert layered.widths == (means[-2].shape[1], means[-1].shape[1], tower.dim)
    assert layered.dim == sum(layered.widths)


@torch.no_grad()
def test_every_cut_that_leaves_the_layers_gives_the_whole(tower, images):
    layered = LayeredTower(tower, 2, "fine").eval()
    whole = layered(images)
    for last in range(1, layered.depth + 1):
        pooled, patches = layered.suffix(layered.prefix(images, last), last)
        assert torch.allclose(pooled, whole.pooled, atol=1e-5)
        assert torch.allclose(patches, whole.patches, atol=1e-5)
    assert whole.patches.shape == (2, layered.grid**2, layered.dim)


@torch.no_grad()
@pytest.mark.parametrize("maps", ["fine", "coarse"])
def test_regions_are_those_of_pooling_the_patches(tower, images, maps):
    layered = LayeredTower(tower, 3, maps).eval()
    weights = torch.rand(2, 4, layered.grid, layered.grid)
    weights[0, 1] = 0  # absent
    pooled, regions = layered.regional(images, layered.depth, weights)
    whole = layered(images)
    assert torch.allclose(pooled, whole.pooled, atol=1e-5)
    assert torch.allclose(regions, pool(whole.patches, weights), atol=1e-4)
    assert not regions[0, 1].any()


def test_fine_maps_keep_the_finest_grid_and_coarse_ones_the_coarsest():
    grids = [LayeredTower(mobilenet(), 4, maps).grid for maps in ("fine", "coarse")]
    assert grids == [4, 2]  # strides 16 and 32 of 64 pixels


@torch.no_grad()
def test_a_grid_that_is_no_multiple_is_pooled_as_its_patches_are(images):
    tower = mobilenet().eval()
    layered = LayeredTower(tower, 4, "fine")
    layered.grid = 3  # of 2: some coarse patches stand for more fine ones than others
    weights = torch.rand(2, 2, 3, 3)
    _, regions = layered.regional(images, layered.depth, weights)
    assert torch.allclose(regions, pool(layered(images).patches, weights), atol=1e-4)


def test_another_choice_of_layers_is_another_tower(tower):
    towers = [LayeredTower(tower, n, maps) for n, maps in [(1, "fine"), (2, "fine"), (2, "coarse")]]
    assert len({each.fingerprint for each in [tower, *towers]}) == 4


def test_layers_before_the_cut_are_refused():
    with pytest.raises(ConfigurationError, match=r"model.layers = 3 begins before .*last-1"):
        LayeredTower(TinyImageTower(), 3, "fine").suffix(torch.zeros(1, 96, 8, 8), 1)
    adapted = adapt(LayeredTower(TinyImageTower(), 3, "fine"), "last-2")
    assert adapted.last == 2


@pytest.mark.parametrize("layers", [0, 5])
def test_more_layers_than_blocks_are_refused(layers):
    with pytest.raises(ConfigurationError, match=f"model.layers = {layers}: tiny has 4 blocks"):
        LayeredTower(TinyImageTower(), layers, "fine")


def test_every_layer_weighs_alike_however_wide():
    shares = layer_shares((4, 16))
    standard = torch.randn(2000, 20, generator=torch.Generator().manual_seed(2)) * shares
    lengths = [float(part.square().sum(1).mean()) for part in (standard[:, :4], standard[:, 4:])]
    assert lengths == pytest.approx([1, 1], rel=0.1)
    assert torch.equal(layer_shares((5,)), torch.ones(5))
