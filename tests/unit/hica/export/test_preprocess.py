"""The code that is handed on prepares an image as HiCA does, to the pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from hica.export.standalone.preprocess import colours, normalised
from hica.images.preprocess import Preprocess

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.mark.parametrize("resize", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(90, 50, 3), (31, 200, 3), (64, 64)])
def test_colours_are_hicas(resize, interpolation, shape):
    look = Preprocess(64, MEAN, STD, interpolation, resize)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    settings = {"size": 64, "resize": resize, "interpolation": interpolation}
    found = colours(image, settings)
    expected = look.pixels(image)
    assert found.dtype == np.float32 and found.shape == (3, 64, 64)
    np.testing.assert_array_equal(np.round(255 * found), expected.numpy())
    settings |= {"mean": MEAN, "std": STD}
    torch.testing.assert_close(
        torch.from_numpy(normalised(found, settings)), look.normalise(expected[None])[0]
    )


def test_a_picture_that_was_turned_is_upright():
    image = Image.fromarray(np.zeros((40, 20, 3), np.uint8))
    image.paste((255, 255, 255), (0, 0, 20, 20))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    settings = {"size": 8, "resize": "squash", "interpolation": "bilinear"}
    np.testing.assert_allclose(colours(turned, settings), colours(image, settings))


@pytest.mark.parametrize("mode", ["I;16", "F", "P", "RGBA", "CMYK"])
def test_what_needs_a_decision_is_refused(mode):
    with pytest.raises(ValueError, match="save it as 8-bit grey or RGB first"):
        colours(Image.new(mode, (8, 8)), {"size": 8})
