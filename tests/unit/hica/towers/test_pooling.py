import pytest
import torch

from hica.towers.pooling import pool, to_grid

SIZES = [
    # B, g, K, D
    (1, 1, 1, 1),
    (1, 3, 2, 4),
    (2, 2, 1, 3),
    (3, 4, 5, 7),
]


def make(B, g, K, D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(B, g * g, D, generator=generator, dtype=torch.float64)
    weights = torch.rand(B, K, g, g, generator=generator, dtype=torch.float64)
    return patches, weights


def slow_pool(patches, weights):
    B, K, g, _ = weights.shape
    result = torch.zeros(B, K, patches.shape[-1], dtype=patches.dtype)
    for image in range(B):
        for region in range(K):
            total = 0.0
            for row in range(g):
                for column in range(g):
                    weight = weights[image, region, row, column]
                    total += weight
                    result[image, region] += weight * patches[image, row * g + column]
            if total > 0:
                result[image, region] /= total
    return result


@pytest.mark.parametrize("size", SIZES)
def test_pool_equals_a_loop(size):
    patches, weights = make(*size)
    weights[0, 0] = 0.0
    fast = pool(patches, weights)
    torch.testing.assert_close(fast, slow_pool(patches, weights), rtol=0, atol=1e-12)
    assert torch.equal(fast[0, 0], torch.zeros(size[-1], dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES)
def test_pool_passes_gradcheck(size):
    patches, weights = make(*size)
    patches.requires_grad_()
    assert torch.autograd.gradcheck(pool, [patches, weights.clone().requires_grad_()])
    weights[0, 0] = 0.0  # the mean jumps there, so only the patches are differentiated
    assert torch.autograd.gradcheck(lambda x: pool(x, weights), [patches])


def test_pool_gives_no_nan_gradient_where_a_region_is_empty():
    patches, _ = make(1, 2, 1, 3)
    patches.requires_grad_()
    weights = torch.zeros(1, 1, 2, 2, requires_grad=True)
    pool(patches, weights).sum().backward()
    assert torch.equal(patches.grad, torch.zeros_like(patches))
    assert torch.isfinite(weights.grad).all()


def test_pool_keeps_the_dtype_of_cached_patches():
    patches, weights = make(2, 2, 1, 3)
    assert pool(patches.half(), weights.float()).dtype == torch.float16


def test_to_grid_averages_the_pixels_of_each_patch():
    masks = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    weights, valid = to_grid(masks, grid=4, count=3)
    for region in range(3):
        for row in range(4):
            for column in range(4):
                patch = masks[region, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
                assert weights[region, row, column] == pytest.approx(patch.sum().item() / 9)
    assert valid.tolist() == [True, True, True]
    assert weights.dtype == torch.float32


def test_to_grid_pads_and_cuts_to_count():
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    weights, valid = to_grid(masks, grid=2, count=4)
    assert weights.shape == (4, 2, 2)
    assert weights.sum(dim=(1, 2)).tolist() == [4.0, 4.0, 0.0, 0.0]
    assert valid.tolist() == [True, True, False, False]
    weights, valid = to_grid(masks, grid=2, count=1)
    assert weights.shape == (1, 2, 2)
    assert valid.tolist() == [True]


@pytest.mark.parametrize("shape", [(0, 8, 8), (3, 0, 8, 8)])
def test_to_grid_without_regions(shape):
    weights, valid = to_grid(torch.zeros(shape, dtype=torch.bool), grid=2, count=2)
    assert weights.shape == (*shape[:-3], 2, 2, 2)
    assert not weights.any()
    assert not valid.any()


def test_to_grid_of_views_marks_a_region_a_crop_has_lost():
    masks = torch.zeros(2, 2, 8, 8, dtype=torch.bool)  # two views of two regions
    masks[:, 0, :4] = True
    masks[0, 1, 6:] = True  # the second view's crop leaves it out
    weights, valid = to_grid(masks, grid=2, count=2)
    assert weights.shape == (2, 2, 2, 2)
    assert valid.tolist() == [[True, True], [True, False]]
    assert weights[0, 1].tolist() == [[0.0, 0.0], [0.5, 0.5]]


def test_a_region_of_one_pixel_is_valid_and_pools_its_patch():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 63, 0] = True
    weights, valid = to_grid(masks, grid=2, count=1)
    patches = torch.arange(4.0).reshape(1, 4, 1)
    assert valid.tolist() == [True]
    assert pool(patches, weights[None]).item() == pytest.approx(2.0)
