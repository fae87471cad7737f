"""Outlines lie on the regions and the similarity map is bright where patches are similar."""

import base64
import io

import numpy as np
from PIL import Image

from hica_server.report import Example
from hica_server.report.pictures import SIDE, png_uri, with_outlines, with_similarity


def example(masks, similarity):
    image = np.full((64, 64, 3), 100, np.uint8)
    return Example(image, masks, similarity, "a", "a", 0.9, "Bern")


def test_png_survives_the_uri():
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    encoded = png_uri(pixels).removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))), pixels)


def test_outline_runs_along_the_inner_edge_of_a_region():
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 16:48, 16:48] = True
    picture = with_outlines(example(masks, np.zeros((4, 4), np.float32)))
    drawn = (picture != 100).any(axis=2)
    scale = SIDE // 64
    inside = np.zeros((SIDE, SIDE), bool)
    inside[16 * scale : 48 * scale, 16 * scale : 48 * scale] = True
    core = np.zeros((SIDE, SIDE), bool)
    core[17 * scale : 47 * scale, 17 * scale : 47 * scale] = True
    assert np.array_equal(drawn & inside, drawn)  # none outside
    assert not (drawn & core).any()  # none in the middle
    assert drawn[16 * scale + 2, SIDE // 2] and drawn[SIDE // 2, 48 * scale - 2]


def test_image_without_regions_is_left_as_it_is():
    picture = with_outlines(example(np.zeros((0, 64, 64), bool), np.zeros((4, 4), np.float32)))
    assert (picture == 100).all()


def test_similarity_is_bright_at_the_similar_patch():
    similarity = np.zeros((4, 4), np.float32)
    similarity[1, 2] = 0.3
    picture = with_similarity(example(np.zeros((0, 64, 64), bool), similarity)).sum(axis=2)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (row * 4 // SIDE, column * 4 // SIDE) == (1, 2)


def test_flat_similarity_is_drawn():
    picture = with_similarity(example(np.zeros((0, 64, 64), bool), np.ones((4, 4), np.float32)))
    assert picture.shape == (SIDE, SIDE, 3)
