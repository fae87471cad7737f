"""Warm is where an image is like a text, and a page holds its pictures itself."""

import base64
import io

import numpy as np
from PIL import Image

from hica.images.overlay import COLOURS, heat_map, jpeg_uri, outlined, png_bytes

GREY = np.full((64, 64, 3), 100, np.uint8)
FIRST, SECOND = (0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73)


def colours(picture):
    return {tuple(each) for each in picture.reshape(-1, 3).tolist()} - {(100, 100, 100)}


def test_an_image_that_is_like_a_text_nowhere_stays_grey():
    drawn = heat_map(GREY, np.full((8, 8), -0.3))
    assert (np.ptp(drawn.astype(int), axis=2) == 0).all()


def test_the_warmest_is_where_the_image_is_most_like_the_text():
    likeness = np.zeros((8, 8))
    likeness[2, 5] = 0.4
    drawn = heat_map(GREY, likeness).astype(int)
    row, column = np.unravel_index((drawn[..., 0] - drawn[..., 2]).argmax(), (64, 64))
    assert (row // 8, column // 8) == (2, 5)
    assert (drawn[48:, :16] == 100).all()  # far from it nothing is changed


def test_each_region_has_a_colour_of_its_own():
    masks = np.zeros((len(COLOURS) + 1, 64, 64), bool)
    masks[0, :20, :20] = masks[1, 30:60, 30:60] = True
    assert colours(outlined(GREY, masks[:2])) == {FIRST, SECOND}
    masks[:2] = False
    masks[-1, :20, :20] = True  # more regions than colours: the first again
    assert colours(outlined(GREY, masks)) == {FIRST}


def test_a_picture_is_part_of_a_page():
    data = base64.b64decode(jpeg_uri(GREY).removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (64, 64)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(GREY)))), GREY)
