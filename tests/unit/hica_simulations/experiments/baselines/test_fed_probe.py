from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from hica_simulations.experiments.baselines.fed_probe import (
    RIDGE,
    STEP,
    fed_avg,
    fed_prox,
    fit,
    gradient,
    scaled,
)


@pytest.fixture
def rows(episode):
    return scaled(episode.shots, episode.shots.mean(axis=0), episode.shots.var(axis=0))


def central(rows, targets, steps):
    """Gradient descent in one place, written out."""
    weights = np.zeros((targets.shape[1], rows.shape[1]))
    for _ in range(steps):
        logits = np.exp(rows @ weights.T)
        errors = logits / logits.sum(axis=1, keepdims=True) - targets
        weights = weights - STEP * (errors.T @ rows / len(rows) + RIDGE * weights)
    return weights


def test_the_gradient_is_that_of_finite_differences(episode, rows):
    rng = np.random.default_rng(0)
    weights, anchor = rng.standard_normal((2, 3, rows.shape[1]))

    def h(flat):
        w = flat.reshape(weights.shape)
        loss = -(episode.targets * log_softmax(rows @ w.T, axis=1)).sum() / len(rows)
        return loss + RIDGE / 2 * (w**2).sum() + 0.3 / 2 * ((w - anchor) ** 2).sum()

    found = gradient(weights, rows, episode.targets, anchor, 0.3)
    np.testing.assert_allclose(found.ravel(), approx_fprime(weights.ravel(), h), atol=1e-5)


def test_one_site_equals_central_training(episode, rows):
    found = fit([rows], [episode.targets], 0.0, rounds=7, epochs=5)
    np.testing.assert_allclose(found, central(rows, episode.targets, 35), atol=1e-12)


def test_one_epoch_a_round_equals_central_training_on_all_shots(episode, rows):
    parts = [np.arange(5), np.arange(5, 25), np.arange(25, 36)]  # of different size
    found = fit([rows[p] for p in parts], [episode.targets[p] for p in parts], 0.0, 30, 1)
    np.testing.assert_allclose(found, central(rows, episode.targets, 30), atol=1e-12)


def test_trained_long_it_is_scikit_learns_logistic_regression(episode, rows):
    found = fit([rows], [episode.targets], 0.0, rounds=2000, epochs=10)
    reference = LogisticRegression(
        C=1 / (RIDGE * len(rows)), fit_intercept=False, tol=1e-10, max_iter=10000
    ).fit(rows, episode.labels)
    np.testing.assert_allclose(found, reference.coef_, atol=1e-4)


def test_a_strong_pull_keeps_sites_near_the_weights_of_the_round(episode, rows):
    parts = episode.by_site
    per_site = [rows[p] for p in parts], [episode.targets[p] for p in parts]
    free, pulled = fit(*per_site, 0.0, 1, 50), fit(*per_site, 0.9, 1, 50)
    assert np.linalg.norm(pulled) < 0.5 * np.linalg.norm(free)


def test_without_a_pull_fedprox_is_fedavg(episode):
    assert not np.array_equal(fed_prox(episode), fed_avg(episode))
    np.testing.assert_array_equal(fed_prox(episode, pull=0.0), fed_avg(episode))


def test_the_names_of_the_sites_do_not_matter(episode):
    renamed = replace(episode, sites=2 - episode.sites)
    np.testing.assert_allclose(fed_avg(renamed), fed_avg(episode), atol=1e-12)
