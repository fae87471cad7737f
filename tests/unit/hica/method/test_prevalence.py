"""Intercepts for a known prevalence, against the equation they solve and a slow search."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, softmax

from hica.method.prevalence import matching_intercepts, of_the_rest, shots_intercepts


def scores_of(count, classes, confidence=3.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    return confidence * (np.eye(classes)[labels] + rng.normal(size=(count, classes)))


@pytest.mark.parametrize("confidence", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("shares", [[0.9, 0.1], [0.2, 0.5, 0.3], [0.01, 0.29, 0.3, 0.4]])
def test_the_mean_prediction_is_the_known_prevalence(shares, confidence):
    scores = scores_of(60, len(shares), confidence)
    bias = matching_intercepts(scores, np.array(shares))
    np.testing.assert_allclose(softmax(scores + bias, axis=1).mean(axis=0), shares, atol=1e-7)
    assert abs(bias.sum()) < 1e-9


def test_two_classes_are_a_search_along_a_line():
    scores = scores_of(41, 2)
    apart = scores[:, 1] - scores[:, 0]
    slow = brentq(lambda b: expit(apart + b).mean() - 0.3, -50, 50, xtol=1e-12)
    bias = matching_intercepts(scores, np.array([0.7, 0.3]))
    assert bias[1] - bias[0] == pytest.approx(slow, abs=1e-6)


def test_intercepts_the_scores_hold_already_do_not_matter():
    scores, shares = scores_of(30, 3), np.array([0.5, 0.3, 0.2])
    moved = scores + np.array([4.0, -2.0, 1.0])
    found = [matching_intercepts(one, shares) + one for one in (scores, moved)]
    np.testing.assert_allclose(softmax(found[0], axis=1), softmax(found[1], axis=1), atol=1e-7)


def test_single_precision_scores_are_not_computed_with_in_single_precision():
    scores, shares = scores_of(30, 3).astype(np.float32), np.array([0.5, 0.3, 0.2])
    bias = matching_intercepts(scores, shares)
    mean = softmax(scores.astype(np.float64) + bias, axis=1).mean(axis=0)
    np.testing.assert_allclose(mean, shares, atol=1e-7)


def test_shots_taken_out_evenly_leave_fewer_of_what_is_rare():
    # 100 images, 30 of them ill; 20 shots of each class are taken out: 10 of 60 are ill.
    np.testing.assert_allclose(of_the_rest([0.7, 0.3], 100, [20, 20]), [50 / 60, 10 / 60])


def test_an_estimate_that_leaves_less_than_nothing_counts_as_half_an_image():
    np.testing.assert_allclose(of_the_rest([0.9, 0.1], 50, [5, 20]), [40 / 40.5, 0.5 / 40.5])


def test_a_class_the_hospital_never_sees_keeps_a_finite_intercept():
    shares = of_the_rest([0.6, 0.4, 0.0], 40, [5, 5, 0])
    bias = matching_intercepts(scores_of(30, 3), shares)
    assert np.isfinite(bias).all()
    assert bias[2] < bias[:2].min()


@pytest.mark.parametrize("shots", [[0, 0], [1, 1], [20, 20, 20]])
def test_even_shots_say_nothing_of_the_prevalence(shots):
    np.testing.assert_array_equal(shots_intercepts(shots, [True] * len(shots)), 0.0)


def test_a_class_that_ran_short_is_rarer_by_the_rule_of_succession():
    found = softmax(shots_intercepts([4, 0, 1], [True, True, True]))
    np.testing.assert_allclose(found, np.array([5, 1, 2]) / 8, rtol=1e-12)


def test_a_class_nobody_has_seen_is_not_rare_for_that():
    assert shots_intercepts([4, 0, 0], [True, True, False])[1:].tolist() == [-np.log(5), 0.0]
