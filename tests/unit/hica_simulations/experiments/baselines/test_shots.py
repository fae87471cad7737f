import numpy as np
import pytest

from hica_simulations.experiments.baselines.shots import for_prevalence


@pytest.fixture
def predicted():
    """Probabilities by a baseline that prefers class 0 and is quite certain of two images."""

    def predicted(count, seed):
        logits = np.random.default_rng(seed).normal([2.0, 0.0, 0.0], size=(count, 3))
        found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        found[0] = [1.0, 0.0, 0.0]
        return found

    return predicted


def test_the_mean_prediction_of_what_is_known_is_what_is_known(predicted):
    rest, shares = predicted(50, 0), np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(for_prevalence(rest, rest, shares).mean(axis=0), shares, atol=1e-6)


def test_test_images_are_moved_as_those_are_and_by_nothing_of_their_own(predicted):
    rest, shares = predicted(50, 0), np.array([0.2, 0.3, 0.5])
    moved = for_prevalence(predicted(9, 1), rest, shares)
    np.testing.assert_allclose(moved.sum(axis=1), 1.0)
    assert np.isfinite(moved).all() and moved[0].argmax() == 0  # it was certain
    alone = [for_prevalence(one[None], rest, shares)[0] for one in predicted(9, 1)]
    np.testing.assert_array_equal(moved, alone)
    assert (moved[1:, 0] < predicted(9, 1)[1:, 0]).all()
