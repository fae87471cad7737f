import numpy as np
import pytest

from hica.regions.base import components, contrast, grey


def test_components_are_largest_first_and_join_diagonally():
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = True
    mask[3:5, 3:5] = True
    mask[5, 5] = True  # touches the square at a corner
    first, second = components(mask)
    assert first.sum() == 5
    assert second.sum() == 1
    assert second[0, 0]
    assert first.dtype == bool


def test_components_of_equal_area_keep_reading_order():
    mask = np.zeros((4, 9), dtype=bool)
    mask[2, [0, 4, 8]] = True
    assert [int(np.argwhere(region)[0, 1]) for region in components(mask)] == [0, 4, 8]


def test_no_components_in_an_empty_mask():
    assert components(np.zeros((4, 4), dtype=bool)) == []


def test_contrast_equals_a_loop_over_pixels():
    generator = np.random.default_rng(0)
    image = generator.uniform(0, 255, (32, 32))
    mask = np.zeros((32, 32), dtype=bool)
    mask[0:6, 10:20] = True
    band = [
        image[row, column]
        for row in range(32)
        for column in range(32)
        if not mask[row, column]
        and mask[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3].any()
    ]
    expected = abs(image[mask].mean() - sum(band) / len(band))
    assert contrast(image, mask) == pytest.approx(expected, abs=1e-12)


def test_contrast_without_surroundings_is_zero():
    assert contrast(np.ones((4, 4)), np.ones((4, 4), dtype=bool)) == 0.0


def test_grey_is_the_mean_of_the_channels():
    pixels = np.array([[[255, 0, 0], [3, 6, 9]]], dtype=np.uint8)
    assert grey(pixels).tolist() == [[85.0, 6.0]]
