import numpy as np
import pytest
import torch

from hica_simulations.experiments.baselines import coop


def shots_of(episode):
    return torch.from_numpy(episode.unit_shots), torch.from_numpy(episode.labels)


def test_the_gradient_is_that_of_finite_differences(prompted):
    context = coop.start(prompted.prompts, seed=0).requires_grad_()
    coop.loss(context, prompted.prompts, *shots_of(prompted)).backward()
    step = 1e-6
    rng = np.random.default_rng(0)
    for row, column in zip(rng.integers(0, 4, 12), rng.integers(0, 128, 12), strict=True):
        values = []
        for sign in (1, -1):
            moved = context.detach().clone()
            moved[row, column] += sign * step
            values.append(coop.loss(moved, prompted.prompts, *shots_of(prompted)).item())
        slope = (values[0] - values[1]) / (2 * step)
        assert context.grad[row, column].item() == pytest.approx(slope, abs=1e-7)


def test_training_lowers_the_loss_and_leaves_the_start_alone(prompted):
    first = coop.start(prompted.prompts, seed=0)
    kept = first.clone()
    learnt = coop.train(first, prompted.prompts, *shots_of(prompted), steps=20)
    assert torch.equal(first, kept)
    before, after = (coop.loss(c, prompted.prompts, *shots_of(prompted)) for c in (first, learnt))
    assert after < before


def test_an_episode_without_a_text_tower_says_so(one_site):
    plain = one_site(np.eye(2), np.arange(2), np.eye(2), 2)
    with pytest.raises(ValueError, match="needs a text tower"):
        coop.fit_predict(plain)


def test_probabilities_are_those_of_a_repeat(prompted, monkeypatch):
    monkeypatch.setattr(coop, "STEPS", 3)
    found = coop.fit_predict(prompted)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found, coop.fit_predict(prompted))
