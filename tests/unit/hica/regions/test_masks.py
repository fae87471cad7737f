import numpy as np

from hica.regions.masks import MaskComponents

PIXELS = np.zeros((64, 64, 3), dtype=np.uint8)


def test_components_of_the_mask_without_specks():
    mask = np.zeros((64, 64), dtype=bool)
    mask[5:10, 5:10] = True
    mask[30:50, 30:50] = True
    mask[60, 60] = True  # one of 4096 pixels: below 0.1 %
    large, small = MaskComponents()(PIXELS, mask, 4)
    assert large.sum() == 400
    assert small.sum() == 25


def test_a_lesion_below_the_speck_size_stays_when_it_is_all_there_is():
    mask = np.zeros((64, 64), dtype=bool)
    mask[60, 60:62] = True
    mask[2, 2] = True
    (lesion,) = MaskComponents()(PIXELS, mask, 4)
    assert np.argwhere(lesion).tolist() == [[60, 60], [60, 61]]


def test_count_keeps_the_largest():
    mask = np.zeros((64, 64), dtype=bool)
    for index in range(5):
        mask[: index + 2, 10 * index : 10 * index + 5] = True
    assert [int(region.sum()) for region in MaskComponents()(PIXELS, mask, 2)] == [30, 25]


def test_no_mask_or_an_empty_one_gives_no_regions():
    assert MaskComponents()(PIXELS, None, 4) == []
    assert MaskComponents()(PIXELS, np.zeros((64, 64), dtype=bool), 4) == []
