import numpy as np

from hica.regions.superpixels import Superpixels


def test_the_lesion_is_the_first_superpixel():
    image = np.random.default_rng(0).normal(120, 5, (64, 64))
    lesion = np.zeros((64, 64), dtype=bool)
    lesion[20:36, 24:40] = True
    image[lesion] = 250
    pixels = np.repeat(image.astype(np.uint8)[..., None], 3, axis=-1)
    first = Superpixels()(pixels, None, 4)[0]
    assert (first & lesion).sum() / (first | lesion).sum() > 0.6


def test_superpixels_do_not_overlap():
    speckle = np.random.default_rng(0).normal(110, 25, (64, 64, 1)).astype(np.uint8)
    regions = Superpixels()(speckle.repeat(3, axis=-1), None, 8)
    assert len(regions) == 8
    assert np.sum(regions, axis=0).max() == 1


def test_one_grey_level_gives_no_regions():
    assert Superpixels()(np.full((64, 64, 3), 7, dtype=np.uint8), None, 4) == []
