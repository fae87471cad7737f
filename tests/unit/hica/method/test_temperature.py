import numpy as np
import pytest

from hica.method.temperature import LARGEST, fitted_temperature
from hica.steps.predictions import probabilities_of


def test_logits_that_are_too_sure_by_a_factor_are_divided_by_it():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20000, 3))
    labels = np.array([rng.choice(3, p=p) for p in probabilities_of(logits)])
    assert fitted_temperature(4 * logits, labels, np.ones(20000)) == pytest.approx(4, rel=0.05)


def test_it_is_the_best_of_a_fine_grid():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    weights = rng.random(40)

    def loss(temperature):
        p = probabilities_of(logits / temperature)[np.arange(40), labels]
        return -(weights * np.log(p)).sum()

    found = fitted_temperature(logits, labels, weights)
    grid = np.exp(np.linspace(-np.log(LARGEST), np.log(LARGEST), 4001))
    assert loss(found) <= min(map(loss, grid)) + 1e-9


def test_a_weight_of_two_is_an_image_twice():
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(30, 2)), rng.integers(0, 2, 30)
    weights = rng.integers(1, 3, 30)
    twice = np.repeat(np.arange(30), weights)
    assert fitted_temperature(logits, labels, weights.astype(float)) == pytest.approx(
        fitted_temperature(logits[twice], labels[twice], np.ones(len(twice))), rel=1e-4
    )


def test_images_that_are_all_right_stay_within_bounds():
    logits = np.eye(2)[[0, 1, 0, 1]] * 10
    found = fitted_temperature(logits, np.array([0, 1, 0, 1]), np.ones(4))
    assert 1 / LARGEST <= found < 1
