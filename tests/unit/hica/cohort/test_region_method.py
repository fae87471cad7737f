from pathlib import Path

import numpy as np
import pytest
import torch

from hica.cohort.region_method import region_method
from hica.errors import ConfigurationError
from hica.regions import METHODS
from hica.towers.from_study import adapted_tower

CPU = torch.device("cpu")


@pytest.fixture
def method_of(toy_study):
    """The region method of the toy study with these overrides, and its adapted tower."""

    def method_of(*overrides, weights=Path()):
        study = toy_study(*overrides)
        adapted = adapted_tower(study, weights, CPU)
        return region_method(study, weights, adapted.tower, CPU), adapted

    return method_of


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"sam", "hf-sam", "unet"}))
def test_the_method_is_the_one_that_the_study_names(method_of, name):
    method, _ = method_of(f"regions.method={name}")
    assert type(method) is METHODS[name]


def test_weights_are_looked_up_in_the_folder_of_the_site(method_of, tmp_path):
    method, _ = method_of("regions.method=unet", "regions.checkpoint=a.pt", weights=tmp_path)
    assert method.checkpoint == tmp_path / "a.pt"


def test_a_method_without_the_weights_it_needs_is_refused_with_the_study(toy_study):
    with pytest.raises(ConfigurationError, match="checkpoint"):
        toy_study("regions.method=unet")


@pytest.mark.parametrize("train", ["adapter", "last-1", "full"])
def test_a_site_cuts_the_patches_of_the_tower_as_it_was_loaded(method_of, train):
    method, tower = method_of("regions.method=token-cut", f"model.train={train}")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        loaded = tower.tower(tower.tower.preprocess.normalise(images)).patches[0].numpy()
        for weight in tower.parameters():
            weight.add_(1.0)
    assert np.array_equal(method.patches(pixels), loaded)
    assert method.patches(pixels).shape == (64, 128)
    assert tower.tower.fingerprint in method.version
