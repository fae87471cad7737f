"""Federated Newton steps against the pooled problem and against a slow loop."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hica.method.calibration import Curvature, curvature, largest_intercept, newton_step

RIDGE = 0.03


def sites(seed=0, classes=3):
    """Scores that prefer class 0, and labels, of four sites of different sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for count in (5, 12, 1, 30):
        labels = rng.integers(classes, size=count)
        scores = 2.0 * np.eye(classes)[labels] + rng.normal(size=(count, classes))
        found.append((scores + np.array([2.0] + [0.0] * (classes - 1)), labels))
    return found


def objective(bias, scores, labels):
    logits = scores + bias
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return loss.mean() + RIDGE * (bias**2).sum()


def test_curvature_equals_a_loop_over_images():
    scores, labels = sites()[1]
    bias = np.array([0.3, -0.2, 0.1])
    gradient, hessian = np.zeros(3), np.zeros((3, 3))
    for row, label in zip(scores, labels, strict=True):
        p = np.exp(row + bias) / np.exp(row + bias).sum()
        for a in range(3):
            gradient[a] += p[a] - (a == label)
            for b in range(3):
                hessian[a, b] += (a == b) * p[a] - p[a] * p[b]
    found = curvature(scores, labels, bias)
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-13)
    np.testing.assert_allclose(found.hessian, hessian, atol=1e-13)
    assert found.images == len(labels)


def test_sums_of_sites_are_those_of_pooled_images():
    parts = [curvature(scores, labels, np.zeros(3)) for scores, labels in sites()]
    pooled = curvature(*(np.concatenate(part) for part in zip(*sites(), strict=True)), np.zeros(3))
    step = newton_step(np.zeros(3), parts, RIDGE)
    np.testing.assert_allclose(step, newton_step(np.zeros(3), [pooled], RIDGE), atol=1e-13)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_few_steps_reach_the_pooled_minimum(classes):
    found = sites(1, classes)
    bias = np.zeros(classes)
    for _ in range(6):
        parts = [curvature(scores, labels, bias) for scores, labels in found]
        bias = newton_step(bias, parts, RIDGE)
    scores, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    best = minimize(objective, np.zeros(classes), (scores, labels), method="BFGS", tol=1e-12)
    np.testing.assert_allclose(bias, best.x, atol=1e-6)
    assert bias[0] < bias[1:].min()  # the preferred class is held back
    assert np.abs(bias.sum()) < 1e-12  # the ridge leaves nothing in the direction softmax ignores


def test_large_scores_do_not_overflow():
    parts = curvature(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 1]), np.zeros(2))
    assert np.isfinite(parts.hessian).all()
    np.testing.assert_array_equal(newton_step(np.zeros(2), [parts], RIDGE), np.zeros(2))


def test_a_stronger_ridge_holds_intercepts_back():
    parts = [curvature(scores, labels, np.zeros(3)) for scores, labels in sites()]
    weak, strong = (newton_step(np.zeros(3), parts, ridge) for ridge in (0.01, 1.0))
    assert np.linalg.norm(strong) < np.linalg.norm(weak)


def test_no_image_of_a_class_still_has_a_finite_step():
    part = curvature(np.zeros((4, 3)), np.array([0, 0, 1, 1]), np.zeros(3))
    bias = newton_step(np.zeros(3), [part, Curvature(np.zeros(3), np.zeros((3, 3)), 0)], RIDGE)
    assert np.isfinite(bias).all()
    assert bias[2] < 0


@pytest.mark.parametrize("ridge", [1e-4, 0.03, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_newton_steps_go_beyond_the_largest_intercept(ridge, seed):
    """Neither with scores that are sure and wrong, nor with curvature that no image has."""
    draws = np.random.default_rng(seed)
    bias, wild = np.zeros(3), np.zeros(3)
    for steps in range(1, 7):
        labels = draws.integers(3, size=8) % (1 + seed % 3)
        part = curvature(draws.normal(size=(8, 3)) * 50, labels, bias)
        bias = newton_step(bias, [part], ridge)
        root = draws.normal(size=(3, 3)) * 10.0 ** draws.integers(-4, 2)
        gradient = 8 * np.sqrt(2) * np.sign(draws.normal()) * np.eye(3)[0]
        wild = newton_step(wild, [Curvature(gradient, root @ root.T, 8)], ridge)
        assert max(np.abs(bias).max(), np.abs(wild).max()) <= largest_intercept(steps, ridge)
