import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from hica_simulations.experiments.baselines import clap, zero_shot
from hica_simulations.experiments.baselines.episode import TEMPERATURE


def test_multipliers_are_the_texts_own_success_on_the_shots(episode):
    shots = replace(episode, test=episode.train, test_sites=episode.sites)
    zero = zero_shot.fit_predict(shots)
    for label, found in enumerate(clap.multipliers(episode)):
        own = [zero[i, label] for i, y in enumerate(episode.labels) if y == label]
        assert found == pytest.approx(sum(own) / len(own), abs=1e-12)


def parts(episode):
    weights = episode.text + 0.3 * np.random.default_rng(1).standard_normal(episode.text.shape)
    held = np.array([0.2, 0.5, 0.9])
    return weights, episode.unit_shots, episode.targets, episode.text, held


def test_the_objective_equals_one_computed_in_loops(episode):
    weights, shots, targets, texts, held = parts(episode)
    loss = 0.0
    for shot, label in zip(shots, episode.labels, strict=True):
        cosines = [sum(shot * w) / math.sqrt(sum(w * w)) for w in weights]
        powers = [math.exp(cosine / TEMPERATURE) for cosine in cosines]
        loss -= math.log(powers[label] / sum(powers)) / len(shots)
    for weight, text, multiplier in zip(weights, texts, held, strict=True):
        loss += multiplier * sum((w - t) ** 2 for w, t in zip(weight, text, strict=True)) / 3
    value, _ = clap.objective(weights, shots, targets, texts, held)
    assert value == pytest.approx(loss, abs=1e-10)


def test_the_gradient_is_that_of_finite_differences(episode):
    weights, *rest = parts(episode)

    def value(flat):
        return clap.objective(flat.reshape(weights.shape), *rest)[0]

    def gradient(flat):
        return clap.objective(flat.reshape(weights.shape), *rest)[1].ravel()

    assert check_grad(value, gradient, weights.ravel()) < 1e-5


def test_texts_that_are_held_hard_stay_what_they_are(episode, monkeypatch):
    monkeypatch.setattr(clap, "multipliers", lambda _: np.full(3, 1e9))
    np.testing.assert_allclose(clap.fit_predict(episode), zero_shot.fit_predict(episode), atol=1e-6)


def test_a_class_without_shots_is_held_at_its_text(episode):
    kept = episode.labels != 1
    fewer = replace(
        episode, train=episode.train[kept], labels=episode.labels[kept], sites=episode.sites[kept]
    )
    assert clap.multipliers(fewer)[1] == 1.0
