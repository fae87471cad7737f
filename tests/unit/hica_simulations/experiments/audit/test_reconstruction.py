import numpy as np
import pytest
import torch

from hica_simulations.experiments.audit import reconstruction
from hica_simulations.experiments.audit.reconstruction import reconstruct


@pytest.fixture(scope="module")
def cosines(world, settings):
    """Cosine by setting, attack and number of images; eight targets."""
    before = reconstruction.TARGETS
    reconstruction.TARGETS = 8
    try:
        rows = [
            row for name in ("none", "secure", "dp-1") for row in reconstruct(world, settings[name])
        ]
    finally:
        reconstruction.TARGETS = before
    assert {row["targets"] for row in rows} == {8}
    return {(row["setting"], row["attack"], row["images"]): row for row in rows}


def test_the_class_sum_of_one_image_is_its_embedding(cosines):
    assert cosines["none", "class sums", 1]["cosine"] == pytest.approx(1.0, abs=1e-9)


def test_one_update_tells_most_of_one_image(cosines):
    row = cosines["none", "update of the class texts", 1]
    assert row["low"] > 0.6 > row["guess"]


@pytest.mark.parametrize("attack", ["class sums", "update of the class texts"])
def test_more_images_and_more_sites_hide_an_image(cosines, attack):
    one = cosines["none", attack, 1]["cosine"]
    assert cosines["none", attack, 5]["cosine"] < one
    assert cosines["secure", attack, 1]["cosine"] < one


@pytest.mark.parametrize("attack", ["class sums", "update of the class texts"])
def test_under_noise_nothing_is_better_than_a_guess(cosines, attack):
    row = cosines["dp-1", attack, 1]
    assert abs(row["cosine"]) < 0.2


def test_the_text_of_the_class_moves_toward_and_the_others_away():
    change = torch.tensor([[1.0, 0.0], [-0.5, 0.0], [-0.5, 0.5]])
    assert np.allclose(reconstruction._toward(change, 0), [2.0, -0.5])
