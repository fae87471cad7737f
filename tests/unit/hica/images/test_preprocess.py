import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hica.images.preprocess import Preprocess

RESIZES = ("squash", "shortest", "longest")
SIZES = [(50, 31), (31, 50), (40, 40), (16, 97), (301, 200)]


def make(resize, interpolation="bicubic", size=24):
    return Preprocess(size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), interpolation, resize)


def noise(size, seed=0):
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_open_clip(resize, interpolation, size):
    from open_clip.transform import CenterCropOrPad, ResizeKeepRatio

    mode = v2.InterpolationMode(interpolation)
    reference = {
        "squash": v2.Resize((24, 24), mode),
        "shortest": v2.Compose([v2.Resize(24, mode), v2.CenterCrop(24)]),
        "longest": v2.Compose([ResizeKeepRatio(24, 1, mode), CenterCropOrPad(24)]),
    }[resize]
    expected = torch.from_numpy(np.array(reference(noise(size)))).permute(2, 0, 1)
    actual = make(resize, interpolation).pixels(noise(size))
    assert actual.dtype == torch.uint8
    assert actual.is_contiguous()
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_moves_as_its_image_does(resize, size):
    width, height = size
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height - 2, width // 4 : width // 2] = True
    image = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    moved = make(resize).mask(mask)
    seen = make(resize, "bilinear").pixels(image)[0]
    assert moved.dtype == torch.bool
    assert moved.any()
    # Interpolation blurs the border by a pixel: where it is certain, the two agree.
    assert moved[seen == 255].all()
    assert not moved[seen == 0].any()


@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_of_one_row(resize):
    pixels = make(resize).pixels(Image.new("RGB", (200, 1), "white"))
    assert pixels.shape == (3, 24, 24)


def test_grey_images_are_taken():
    assert make("squash").pixels(Image.new("L", (5, 5), 7)).unique().tolist() == [7]


def test_normalise():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(2, 3, 1, 1)
    normalised = make("squash").normalise(pixels)
    assert normalised.dtype == torch.float32
    expected = [[-2.0, 3.0], [-0.5 / 0.3, 0.5 / 0.3], [-1.5, 1.0]]
    torch.testing.assert_close(normalised[1, :, 0], torch.tensor(expected))


def test_repr_tells_transforms_apart():
    assert (
        len({repr(make(resize, mode)) for resize in RESIZES for mode in ("bilinear", "bicubic")})
        == 6
    )
