import numpy as np
import pytest

from hica.regions.otsu import Otsu


def rgb(image):
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def speckled(side=96):
    return np.random.default_rng(0).normal(120, 12, (side, side))


def test_finds_a_dark_and_a_bright_lesion_in_speckle():
    rows, columns = np.mgrid[:96, :96]
    dark = (rows - 30) ** 2 + (columns - 30) ** 2 <= 12**2
    bright = (abs(rows - 70) < 8) & (abs(columns - 65) < 12)
    image = speckled()
    image[dark] -= 100
    image[bright] += 80
    first, second = Otsu()(rgb(image), None, 4)
    assert overlap(first, dark) > 0.85  # the higher contrast comes first
    assert overlap(second, bright) > 0.85


def test_three_flat_levels_are_told_apart_exactly():
    image = np.full((64, 64), 128)
    image[10:20, 10:20] = 0
    image[40:60, 40:60] = 255
    found = Otsu(smoothing=0.0)(rgb(image), None, 4)
    # Opening with the smallest diamond takes the four corners of a square.
    assert sorted(int(region.sum()) for region in found) == [100 - 4, 400 - 4]


@pytest.mark.parametrize(("width", "regions"), [(2, 3), (8, 2)])
def test_only_a_thin_bridge_is_cut(width, regions):
    image = np.full((96, 96), 128)
    image[20:40, 10:30] = image[20:40, 60:80] = 0
    image[26 : 26 + width, 30:60] = 0
    image[60:80, 30:50] = 255
    assert len(Otsu()(rgb(image), None, 4)) == regions


def test_a_burned_in_frame_is_no_region():
    image = speckled()
    image[30:50, 30:50] -= 100
    for edge in (slice(0, 5), slice(-5, None)):
        image[edge] = image[:, edge] = 255

    def frames(method):
        return [region for region in method(rgb(image), None, 4) if region[2, 5:-5].all()]

    assert frames(Otsu()) == []
    assert len(frames(Otsu(max_border=1.0))) == 1


def test_too_small_and_too_large_are_left_out():
    rows, columns = np.mgrid[:96, :96]
    image = np.full((96, 96), 120.0)
    image[(rows - 20) ** 2 + (columns - 20) ** 2 <= 3**2] = 255  # 0.3 % of the image
    image[60:64, 60:64] = 60
    dark = (rows - 48) ** 2 + (columns - 48) ** 2 <= 44**2  # 66 % of the image
    assert Otsu()(rgb(image), None, 4) == []
    image[dark] = 0
    assert not any(region.mean() > 0.6 for region in Otsu()(rgb(image), None, 4))
    assert any(region.mean() > 0.6 for region in Otsu(max_area=1.0)(rgb(image), None, 4))


def test_two_levels_give_no_regions():
    image = np.zeros((64, 64))
    image[20:40, 20:40] = 255
    assert Otsu(smoothing=0.0)(rgb(image), None, 4) == []
