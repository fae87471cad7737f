import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hica.method.conformal import (
    patient_weights,
    patients_needed,
    score_limit,
    sets_within,
    share_at_least,
)

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def slow_limit(scores, weights, coverage):
    """Every score tried."""
    for limit in sorted(scores):
        reached = sum(w for s, w in zip(scores, weights, strict=True) if s <= limit)
        if reached >= coverage * (sum(weights) + 1) - 1e-9:
            return limit
    return math.inf


@given(SCORES, st.sampled_from([0.5, 0.8, 0.9]), st.integers(0, 99))
def test_the_limit_is_the_least_score_that_is_enough(scores, coverage, seed):
    weights = np.random.default_rng(seed).choice([0.25, 0.5, 1.0], len(scores))
    found = score_limit(np.array(scores), weights, coverage)
    assert found == slow_limit(scores, weights, coverage)


def test_too_few_patients_promise_nothing():
    needed = patients_needed(0.9)
    assert needed == 9
    scores = np.linspace(0, 0.5, needed)
    assert score_limit(scores, np.ones(needed), 0.9) == 0.5
    assert score_limit(scores[1:], np.ones(needed - 1), 0.9) == math.inf


def test_each_patient_counts_once():
    weights = patient_weights(["a", "b", "a", "a", "c"])
    assert weights == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_new_patients_are_covered_as_often_as_promised(coverage):
    """The mean over many draws lies between the promise and that plus 1 / (n + 1)."""
    rng = np.random.default_rng(0)
    patients, covered = 40, []
    for _ in range(4000):
        scores = rng.random(patients + 1)
        limit = score_limit(scores[:-1], np.ones(patients), coverage)
        covered.append(scores[-1] <= limit)
    error = 3 * math.sqrt(coverage * (1 - coverage) / len(covered))
    assert coverage - error <= np.mean(covered) <= coverage + 1 / (patients + 1) + error


def test_a_set_holds_the_classes_that_are_likely_enough():
    sets = sets_within(np.array([[0.7, 0.3], [0.5, 0.5], [0.95, 0.05]]), 0.5)
    assert sets.tolist() == [[True, False], [True, True], [True, False]]
    assert sets_within(np.array([[0.6, 0.4]]), 0.3).tolist() == [[False, False]]
    assert sets_within(np.array([[1.0, 0.0]]), math.inf).all()


def test_p_values_count_patients_and_the_new_one():
    values, weights = np.array([0.1, 0.2, 0.3, 0.3]), np.array([1.0, 1.0, 0.5, 0.5])
    found = share_at_least(values, weights, np.array([0.0, 0.2, 0.25, 0.4]))
    assert found == pytest.approx([1.0, 3 / 4, 2 / 4, 1 / 4])
