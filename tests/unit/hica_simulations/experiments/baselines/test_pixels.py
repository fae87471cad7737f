import numpy as np
import pytest
from PIL import Image

from hica.errors import DataError
from hica_simulations.experiments.baselines.pixels import SIDE, thumbnails
from hica_simulations.experiments.baselines.registry import ON_PIXELS


def test_thumbnails_are_means_of_blocks(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    (thumbnail,) = thumbnails([tmp_path / "image.png"])
    blocks = pixels.reshape(SIDE, 4, SIDE, 2).mean(axis=(1, 3)).reshape(-1) / 255
    assert thumbnail.dtype == np.float32
    np.testing.assert_allclose(thumbnail, blocks, atol=1 / 255)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.png"):
        thumbnails([tmp_path / "absent.png"])


def test_brightness_is_seen(one_site):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    pixels = 0.3 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((40, SIDE * SIDE))
    episode = one_site(pixels, labels, pixels, 2)
    assert np.all(ON_PIXELS["pixels"](episode).argmax(axis=1) == labels)
