from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hica.images import looks
from hica.images.decode import read_picture
from hica.images.looks import look_at

SHARED = Path(__file__).parents[5] / "shared"


def flat(level: int) -> Image.Image:
    return Image.new("RGB", (80, 60), (level,) * 3)


def shades(low: float, high: float, size: tuple[int, int] = (80, 60)) -> Image.Image:
    """Noise between two grey levels."""
    draws = np.random.default_rng(0).uniform(low, high, size[::-1])
    return Image.fromarray(draws.clip(0, 255).astype(np.uint8)).convert("RGB")


def with_text(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(image).line((2, 2, 4, 2), fill=(255, 255, 255))
    return image


def with_border(image: Image.Image, level: int) -> Image.Image:
    page = Image.new("RGB", (200, 200), (level,) * 3)
    page.paste(image, (60, 60))
    return page


def padded() -> Image.Image:
    image = shades(150, 255)
    image.paste((0, 0, 0), (0, 0, 80, 10))
    return image


def mostly(level: int, share: float) -> Image.Image:
    pixels = np.asarray(shades(20, 235, (100, 100))).copy()
    pixels[: round(share * 100)] = level
    return Image.fromarray(pixels)


def halves() -> Image.Image:
    image = mostly(0, 0.48)
    image.paste((255, 255, 255), (0, 48, 100, 97))
    return image


@pytest.mark.parametrize(
    ("image", "flag"),
    [
        (flat(0), looks.ALL_BLACK),
        (flat(6), looks.ALL_BLACK),
        (shades(0, 5), looks.ALL_BLACK),
        (with_text(flat(0)), looks.ALL_BLACK),
        (flat(255), looks.ALL_WHITE),
        (flat(128), looks.ONE_GREY),
        (shades(127, 130), looks.ONE_GREY),
        (Image.new("RGB", (80, 60), (200, 30, 30)), looks.ONE_GREY),
        (flat(0).point(lambda _: 0).convert("L").convert("RGB"), looks.ALL_BLACK),
        (mostly(0, 0.97), looks.NEARLY_BLACK),
        (mostly(255, 0.97), looks.NEARLY_WHITE),
        (halves(), looks.NO_GREYS),
        (shades(100, 125), looks.DIM),
        (padded(), looks.PADDING),
        (Image.eval(padded(), lambda level: 255 - level), looks.PADDING),
        (with_border(shades(0, 255), 0), looks.BORDER),
        (with_border(shades(0, 255), 255), looks.BORDER),
        (shades(0, 255, (31, 80)), looks.SMALL),
        (shades(0, 255, (400, 100)), looks.THIN),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(image, flag):
    look = look_at(image)
    assert look.flags == (flag,)
    assert look.blank == (flag in (looks.ALL_BLACK, looks.ALL_WHITE, looks.ONE_GREY))


def test_a_mask_in_place_of_an_image_is_told():
    image = flat(0)
    image.paste((255, 255, 255), (10, 10, 30, 30))
    assert look_at(image).flags == (looks.TWO_GREYS,)


@pytest.mark.parametrize(
    "image",
    [
        shades(0, 255),
        shades(60, 180),
        mostly(0, 0.7),
        mostly(255, 0.5),
        with_text(shades(10, 120)),
        shades(0, 255, (32, 32)),
        shades(0, 255, (120, 60)),
    ],
)
def test_an_ordinary_image_has_no_flag(image):
    assert look_at(image).flags == ()


def test_the_same_pixels_have_the_same_hash_whatever_the_file():
    one, other = shades(0, 255), shades(0, 254)
    assert look_at(one).sha256 == look_at(one.copy()).sha256 != look_at(other).sha256
    turned = Image.frombytes("RGB", (60, 80), one.tobytes())
    assert look_at(turned).sha256 != look_at(one).sha256


def test_every_flag_is_in_the_list_once():
    made = [value for value in vars(looks).values() if isinstance(value, looks.Flag)]
    assert set(made) == set(looks.FLAGS) and len(looks.FLAGS) == len(made)


@pytest.mark.real_data
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    "name",
    ["busi", "bus_breast", "cxr_kermany", "cxr_tb_lungmask", "cxr_covid3", "mri3d_hippocampus"],
)
def test_no_false_alarm_on_real_images(name):
    files = sorted((SHARED / "data" / name / "images").iterdir())[::25]
    flags = {file.name: look_at(read_picture(file).image).flags for file in files}
    assert len(files) >= 2 and not any(flags.values())


@pytest.mark.real_data
@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="../shared/cases is absent")
def test_padding_far_from_all_values_is_told():
    image = read_picture(SHARED / "cases" / "nifti" / "N09_ct_padding.nii.gz").image
    assert looks.PADDING in look_at(image).flags
