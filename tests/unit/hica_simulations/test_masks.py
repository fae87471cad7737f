"""Damaged masks against loops over pixels."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hica.errors import ConfigurationError, DataError
from hica.images.decode import read_mask
from hica.images.manifest import Record
from hica.seeds import derived_seed
from hica_simulations.masks import dilated, resized, shifted, with_damaged_masks


def random_masks(count=12):
    draws = np.random.default_rng(0)
    for _ in range(count):
        height, width = draws.integers(5, 24, 2)
        yield draws.random((height, width)) < draws.choice([0.01, 0.05, 0.4])


def slowly_dilated(mask, radius):
    height, width = mask.shape
    grown = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            grown[y, x] = any(
                (y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in np.argwhere(mask)
            )
    return grown


def slowly_moved(mask, down, right):
    height, width = mask.shape
    moved = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        if 0 <= y + down < height and 0 <= x + right < width:
            moved[y + down, x + right] = True
    return moved


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_dilation_adds_all_pixels_within_the_distance(share):
    for mask in random_masks():
        expected = slowly_dilated(mask, round(share * min(mask.shape)))
        assert (dilated(mask, share) == expected).all()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.49])
@pytest.mark.parametrize("turn", [0.0, 0.15, 0.5, 0.8])
def test_a_shift_moves_every_pixel_or_goes_another_way(share, turn):
    for mask in random_masks():
        distance = share * min(mask.shape)
        right = round(distance * math.cos(math.tau * turn))
        down = round(distance * math.sin(math.tau * turn))
        found = shifted(mask, share, math.tau * turn)
        for way in [(down, right), (-down, -right), (right, -down), (-right, down)]:
            expected = slowly_moved(mask, *way)
            if expected.any() or not mask.any():
                break
        assert (found == expected).all()


def test_a_mask_is_never_shifted_out_of_the_frame():
    for height, width in [(7, 7), (8, 8), (9, 14)]:
        for y in range(height):
            for x in range(width):
                mask = np.zeros((height, width), dtype=bool)
                mask[y, x] = True
                for turn in np.linspace(0, 1, 13):
                    assert shifted(mask, 0.499, math.tau * turn).sum() == 1


def test_a_mask_at_the_edge_goes_the_opposite_way():
    mask = np.zeros((10, 10), dtype=bool)
    mask[4:6, 9] = True
    found = shifted(mask, 0.3, 0.0)  # to the right it would be lost
    assert np.argwhere(found).tolist() == [[4, 6], [5, 6]]


def test_resizing_takes_the_nearest_pixel():
    for mask in random_masks():
        for height, width in [(7, 19), (30, 11)]:
            found = resized(mask, (height, width))
            for y in range(height):
                for x in range(width):
                    centre = Fraction(2 * y + 1, 2 * height), Fraction(2 * x + 1, 2 * width)
                    v, u = (math.floor(c * n) for c, n in zip(centre, mask.shape, strict=True))
                    assert found[y, x] == mask[v, u]


@pytest.fixture
def site(tmp_path):
    """Six images of different sizes, the last without a mask."""
    draws = np.random.default_rng(0)
    records = []
    for n in range(6):
        height, width = 12 + 2 * n, 24 - n
        image, mask = tmp_path / f"{n}.png", tmp_path / f"{n}_mask.png"
        Image.fromarray(draws.integers(0, 255, (height, width), dtype=np.uint8)).save(image)
        drawn = np.zeros((height, width), dtype=bool)
        drawn[1 + n : 6 + 2 * n, 2 * n : 9 + n] = True
        Image.fromarray(255 * drawn.astype(np.uint8)).save(mask)
        records.append(Record(image, label="a", mask=None if n == 5 else mask))
    return records


def size_of(record):
    return Image.open(record.image).size


def masks_of(records):
    return [read_mask(r.mask, size_of(r)) if r.mask else None for r in records]


@pytest.mark.parametrize("damage", ["dilated", "shifted", "replaced"])
def test_masks_are_damaged_as_their_images_names_say(site, tmp_path, damage):
    folder = tmp_path / "sites" / "a" / "masks"
    drawn = masks_of(site)
    damaged = with_damaged_masks(site, site, damage, 0.1, 3, folder)
    for n, (record, mask) in enumerate(zip(damaged[:5], masks_of(damaged), strict=False)):
        assert record.mask.parent == folder
        assert (Image.open(record.mask).format, Image.open(record.mask).mode) == ("PNG", "1")
        if damage == "dilated":
            expected = dilated(drawn[n], 0.1)
        elif damage == "shifted":
            turn = derived_seed(3, "shifted mask", f"{n}.png") / 2**56
            assert 0 <= turn < 1
            expected = shifted(drawn[n], 0.1, math.tau * turn)
        else:
            others = [other for m, other in enumerate(drawn[:5]) if m != n]
            other = others[derived_seed(3, "replaced mask", f"{n}.png") % 4]
            expected = resized(other, drawn[n].shape)
        assert (mask == expected).all() and (mask != drawn[n]).any()
    assert damaged[5] == site[5]
    assert [(r.image, r.label, r.name) for r in damaged] == [
        (r.image, r.label, r.name) for r in site
    ]


def test_masks_are_left_or_taken_away(site, tmp_path):
    assert with_damaged_masks(site, site, "as drawn", 0.1, 0, tmp_path / "masks") == site
    none = with_damaged_masks(site, site, "none", 0.1, 0, tmp_path / "masks")
    assert all(record.mask is None for record in none)
    assert not (tmp_path / "masks").exists()


def test_what_an_image_gets_does_not_depend_on_which_others_are_kept(site, tmp_path):
    whole = with_damaged_masks(site, site, "replaced", 0.1, 0, tmp_path / "masks")
    few = with_damaged_masks(site[2:4], site[::-1], "replaced", 0.1, 0, tmp_path / "masks")
    assert few == whole[2:4]


def test_drawn_masks_are_kept_and_those_of_other_settings_are_others(site, tmp_path):
    folder = tmp_path / "masks"
    first = with_damaged_masks(site, site, "shifted", 0.1, 0, folder)
    first[0].mask.write_bytes(b"kept")
    assert with_damaged_masks(site, site, "shifted", 0.1, 0, folder) == first
    assert first[0].mask.read_bytes() == b"kept"
    for settings in [("dilated", 0.1, 0), ("shifted", 0.2, 0), ("shifted", 0.1, 1)]:
        other = with_damaged_masks(site, site, *settings, folder)
        assert {r.mask for r in other[:5]}.isdisjoint(r.mask for r in first[:5])


def test_the_only_mask_of_a_site_cannot_be_replaced(site, tmp_path):
    few = [site[0], site[5]]
    with pytest.raises(
        ConfigurationError,
        match=r'simulation.masks = "replaced": 0.png has the only mask at site a; choose another',
    ):
        with_damaged_masks(few, few, "replaced", 0.1, 0, tmp_path / "sites" / "a" / "masks")


def test_a_mask_that_is_not_of_its_image_is_named(site, tmp_path):
    wrong = [Record(site[0].image, mask=site[1].mask), site[2]]
    with pytest.raises(DataError, match=r"1_mask.png: the mask is .* but its image is"):
        with_damaged_masks(wrong, wrong, "dilated", 0.1, 0, Path(tmp_path) / "masks")
