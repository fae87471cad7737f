"""What every baseline promises, over the whole registry."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from hica_simulations.experiments.baselines.registry import (
    IN_EVERY_RUN,
    MODELS,
    ON_FEATURES,
    ON_IMAGES,
    ON_PIXELS,
    ON_PROMPTS,
)
from hica_simulations.experiments.titles import TITLES

EVERY = ON_PIXELS | ON_FEATURES | ON_PROMPTS


@pytest.mark.parametrize("name", EVERY | ON_IMAGES)
def test_every_baseline_has_a_title(name):
    assert name in TITLES


def test_what_runs_always_exists_and_needs_no_text():
    assert set(IN_EVERY_RUN) <= set(ON_PIXELS | ON_FEATURES)


@pytest.mark.parametrize("name", ON_PIXELS | ON_FEATURES)
def test_probabilities_are_those_of_a_repeat_and_sum_to_one(name, episode):
    found = EVERY[name](episode)
    assert found.shape == (len(episode.test), 3)
    assert np.all(found >= 0)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-9)
    np.testing.assert_array_equal(found, EVERY[name](replace(episode)))


@pytest.mark.parametrize("name", ON_PIXELS | ON_FEATURES)
def test_classes_that_lie_apart_are_told_apart(name, episode, truth):
    assert np.mean(EVERY[name](episode).argmax(axis=1) == truth) > 0.8


@pytest.mark.parametrize("name", ON_PIXELS | ON_FEATURES)
def test_a_class_without_shots_and_a_site_without_shots_are_no_obstacle(name, episode):
    kept = (episode.labels != 2) & (episode.sites != 1)
    fewer = replace(
        episode, train=episode.train[kept], labels=episode.labels[kept], sites=episode.sites[kept]
    )
    found = EVERY[name](fewer)
    assert found.shape == (len(episode.test), 3) and np.isfinite(found).all()


@pytest.mark.parametrize("name", ON_PIXELS | ON_FEATURES)
def test_test_images_do_not_influence_each_other(name, episode):
    some = replace(episode, test=episode.test[::7], test_sites=episode.test_sites[::7])
    np.testing.assert_allclose(EVERY[name](some), EVERY[name](episode)[::7], atol=1e-9)


@pytest.fixture
def tuned(request, tuned_last, tuned_lora):
    """A baseline on images, shortened, and the episode of what it trains."""
    name = request.param
    short = {"cnn": {"epochs": 2}, "clip_lora": {"steps": 4}}[name]
    return partial(ON_IMAGES[name], **short), {"cnn": tuned_last, "clip_lora": tuned_lora}[name]


on_images = pytest.mark.parametrize("tuned", ON_IMAGES, indirect=True)


def test_what_trains_the_tower_says_which_part():
    assert set(MODELS) == set(ON_IMAGES)
    assert all("train" in changes["model"] for changes in MODELS.values())


@on_images
def test_with_images_probabilities_are_those_of_a_repeat_and_sum_to_one(tuned):
    fit_predict, episode = tuned
    found = fit_predict(episode)
    assert found.shape == (len(episode.inputs.test), 3)
    assert np.all(found >= 0)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-9)
    torch.rand(7)  # whoever drew before does not matter
    np.testing.assert_array_equal(found, fit_predict(replace(episode)))
    other = replace(episode, inputs=replace(episode.inputs, seed=5))
    assert not np.array_equal(found, fit_predict(other))


@on_images
def test_with_images_a_class_and_a_site_without_shots_are_no_obstacle(tuned):
    fit_predict, episode = tuned
    inputs = episode.inputs
    kept = (inputs.labels != 2) & (inputs.sites != 1)
    fewer = replace(
        inputs, train=inputs.train[kept], labels=inputs.labels[kept], sites=inputs.sites[kept]
    )
    found = fit_predict(replace(episode, inputs=fewer))
    assert found.shape == (len(inputs.test), 3) and np.isfinite(found).all()


@on_images
def test_with_images_test_images_do_not_influence_each_other(tuned):
    fit_predict, episode = tuned
    inputs = episode.inputs
    some = replace(inputs, test=inputs.test[::7], test_sites=inputs.test_sites[::7])
    found = fit_predict(replace(episode, inputs=some))
    np.testing.assert_allclose(found, fit_predict(episode)[::7], atol=1e-9)
