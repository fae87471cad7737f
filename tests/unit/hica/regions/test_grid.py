import numpy as np
import pytest

from hica.regions.grid import Grid


def blank(side):
    return np.zeros((side, side, 3), dtype=np.uint8)


def test_four_cells_are_the_quarters_in_reading_order():
    top_left, top_right, bottom_left, bottom_right = Grid()(blank(8), None, 4)
    assert top_left[:4, :4].all()
    assert top_right[:4, 4:].all()
    assert bottom_left[4:, :4].all()
    assert bottom_right[4:, 4:].all()


@pytest.mark.parametrize("count", [1, 4, 9, 16])
@pytest.mark.parametrize("side", [16, 17])
def test_a_square_count_covers_every_pixel_once(side, count):
    regions = Grid()(blank(side), None, count)
    assert len(regions) == count
    assert (np.sum(regions, axis=0) == 1).all()


def test_other_counts_take_the_first_cells_of_the_next_square():
    regions = Grid()(blank(9), None, 5)
    assert [int(region.sum()) for region in regions] == [9] * 5
    assert regions[4][3:6, 3:6].all()


def test_more_cells_than_pixels_leaves_the_empty_ones_out():
    assert all(region.any() for region in Grid()(blank(2), None, 9))
