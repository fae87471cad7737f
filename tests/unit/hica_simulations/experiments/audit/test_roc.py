import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from hica_simulations.experiments.audit.bounds import epsilon_of_mu
from hica_simulations.experiments.audit.roc import auc, likelihood_ratio, roc, tpr_at, verdict


def drawn(shift, count=4000, seed=0):
    draws = np.random.default_rng(seed)
    inside = draws.random(count) < 0.5
    return draws.standard_normal(count) + shift * inside, inside


def test_curves_are_scikit_learn_s():
    scores, inside = drawn(1.0, 200)
    scores = scores.round(1)  # with ties
    false, true = roc(scores, inside)
    wanted = roc_curve(inside, scores, drop_intermediate=False)
    assert np.allclose(false, wanted[0])
    assert np.allclose(true, wanted[1])
    assert auc(scores, inside) == pytest.approx(roc_auc_score(inside, scores))


def test_tpr_is_the_largest_among_thresholds_with_few_false_alarms():
    inside = np.array([True] * 4 + [False] * 100)
    scores = np.concatenate([[3.0, 3.0, 2.0, 0.0], np.full(98, 1.0), [2.5, 2.1]])
    assert tpr_at(scores, inside, 0.01) == 0.5
    assert tpr_at(scores, inside, 0.02) == 0.75


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.0])
def test_bounds_stay_below_the_truth_and_come_near_it(shift):
    truth = epsilon_of_mu(shift, 1e-5)
    found = verdict(*drawn(shift, 20_000), 1e-5)
    assert 0.7 * truth < found.gaussian_bound <= truth
    assert 0 < found.bound <= truth
    assert found.tpr_low < found.tpr < found.tpr_high


def test_bounds_pass_the_truth_as_rarely_as_they_say():
    truth = epsilon_of_mu(0.5, 1e-3)
    passed = sum(
        verdict(*drawn(0.5, 400, seed), 1e-3).gaussian_bound > truth for seed in range(100)
    )
    assert passed <= 5  # 5 % of 100


def test_scores_that_know_reach_the_ceiling():
    inside = np.arange(400) % 2 == 0
    found = verdict(inside.astype(float), inside, 1e-5)
    assert found.auc == found.tpr == 1.0
    assert found.bound == pytest.approx(found.ceiling)
    assert found.gaussian_bound == pytest.approx(found.gaussian_ceiling)


def test_a_half_without_members_is_refused():
    with pytest.raises(ValueError, match="each half"):
        verdict(np.zeros(10), np.arange(10) < 5, 1e-5)


def test_likelihood_ratios_find_members_whose_scores_fall():
    scores, inside = drawn(-2.0)
    assert auc(scores, inside) < 0.1
    assert auc(likelihood_ratio(scores, inside), inside) > 0.9
