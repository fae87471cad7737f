import hashlib
import random

import pytest
import torch

from hica.images.views import MAX_STRETCH, MIN_SCALE, _crop, _draw_box, make_views

SIDE = 32


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


@pytest.fixture
def masks():
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 4:20, 8:28] = True
    masks[1, 20:, :10] = True
    return masks


def test_identity_then_mirror_image_then_crops(pixels, masks):
    views, view_masks = make_views(pixels, masks, 6, "key")
    assert views.shape == (6, 3, SIDE, SIDE)
    assert views.dtype == torch.uint8
    assert view_masks.shape == (6, 2, SIDE, SIDE)
    assert view_masks.dtype == torch.bool
    assert torch.equal(views[0], pixels)
    assert torch.equal(view_masks[0], masks)
    assert torch.equal(views[1], pixels.flip(-1))
    assert torch.equal(view_masks[1], masks.flip(-1))
    assert len({view.numpy().tobytes() for view in views}) == 6


def test_draws_depend_on_the_key_alone(pixels, masks):
    torch.manual_seed(1)
    views, view_masks = make_views(pixels, masks, 5, "key")
    torch.manual_seed(2)
    again, again_masks = make_views(pixels, masks, 5, "key")
    assert torch.equal(views, again)
    assert torch.equal(view_masks, again_masks)
    others, _ = make_views(pixels, masks, 5, "another key")
    assert not any(
        torch.equal(view, other) for view, other in zip(views[2:], others[2:], strict=True)
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_views_are_the_first_of_more(pixels, count):
    views, none = make_views(pixels, None, count, "key")
    assert none is None
    assert torch.equal(views, make_views(pixels, None, 5, "key")[0][:count])


def test_an_image_without_regions(pixels):
    _, view_masks = make_views(pixels, torch.zeros(0, SIDE, SIDE, dtype=torch.bool), 4, "key")
    assert view_masks.shape == (4, 0, SIDE, SIDE)


def test_masks_move_as_the_pixels_do(masks):
    """An image that is its own mask: bright inside, dark outside."""
    drawn = masks[:1].expand(3, -1, -1).to(torch.uint8) * 200
    views, view_masks = make_views(drawn, masks, 12, "key")
    for view, mask in zip(views[:, 0], view_masks[:, 0], strict=True):
        # Interpolation blurs the border by a pixel: away from it the two agree.
        inside, outside = view == view.max(), view == view.min()
        assert mask[inside].all()
        assert not mask[outside].any()
        assert (inside | outside).float().mean() > 0.7


def test_draws_are_written_down():
    """The documented draws by `random.random` alone; a change here outdates cached views."""
    draws = random.Random(hashlib.sha256(b"key").digest())
    assert [_draw_box(draws, 64) for _ in range(2)] == [(5, 2, 56, 48), (0, 5, 64, 55)]


def test_boxes_keep_their_scale_and_aspect():
    draws = random.Random(0)
    for _ in range(500):
        top, left, height, width = _draw_box(draws, 1000)
        assert min(top, left) >= 0
        assert max(top + height, left + width) <= 1000
        assert MIN_SCALE - 0.01 <= height * width / 1e6 <= 1
        assert 1 / MAX_STRETCH - 0.01 <= width / height <= MAX_STRETCH + 0.01


def test_gain_stays_in_bounds():
    flat = torch.full((3, SIDE, SIDE), 100, dtype=torch.uint8)
    views, _ = make_views(flat, None, 60, "key")
    levels = views[2:, 0, 0, 0].float()
    assert levels.min() >= 80
    assert levels.max() <= 120
    assert levels.std() > 5


def test_crop_of_everything_is_the_image(pixels):
    box = (0, 0, SIDE, SIDE)
    assert torch.equal(_crop(pixels, box, False, "bilinear"), pixels.float())
    assert torch.equal(_crop(pixels, box, True, "bilinear"), pixels.flip(-1).float())


def test_a_view_of_the_region_shows_it_with_some_room(pixels, masks):
    views, view_masks = make_views(pixels, masks, 4, "key", zoomed=2)
    plain, _ = make_views(pixels, masks, 3, "key")
    assert torch.equal(torch.cat([views[:2], views[3:]]), plain)  # the others are as without it
    # The first mask is 16 × 20 pixels; 1.6 × 20 is the whole side of 32.
    assert torch.equal(views[2], pixels)
    small = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    small[0, 10:15, 20:28] = True  # a square of 13 around row 12, column 24
    views, view_masks = make_views(pixels, small, 3, "key", zoomed=1)
    assert torch.equal(views[1], _crop(pixels, (6, 18, 13, 13), False, "bilinear").round().byte())
    assert view_masks[1].float().mean() == pytest.approx(40 / 169, abs=0.03)


def test_a_view_of_a_tiny_or_absent_region_is_not_enlarged_without_end(pixels):
    nothing = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    for masks in (nothing, nothing[:0], None):
        views, _ = make_views(pixels, masks, 3, "key", zoomed=2)
        assert torch.equal(views[2], pixels)
    point = nothing.clone()
    point[0, 0, 31] = True
    views, _ = make_views(pixels, point, 3, "key", zoomed=2)
    assert torch.equal(views[2], _crop(pixels, (0, 24, 8, 8), False, "bilinear").round().byte())
