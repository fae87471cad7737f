import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from hica_simulations.experiments.baselines import tip_adapter
from hica_simulations.experiments.baselines.episode import TEMPERATURE
from hica_simulations.experiments.baselines.tip_adapter import ALPHA, BETA
from hica_simulations.experiments.baselines.tip_adapter_f import (
    EPSILON,
    LEARNING_RATE,
    fit_predict,
    logits,
)


def loss_in_loops(episode, keys):
    total = 0.0
    for shot, label in zip(episode.unit_shots, episode.labels, strict=True):
        found = [sum(shot * text) / TEMPERATURE for text in episode.text]
        for key, other in zip(keys, episode.labels, strict=True):
            found[other] += ALPHA * math.exp(-BETA * (1 - sum(shot * key)))
        total += math.log(sum(math.exp(one) for one in found)) - found[label]
    return total / len(episode.labels)


def gradient_in_loops(episode, keys):
    """d loss / d K_j = mean_i (Σ_c (p_ic - y_ic)·V_jc)·α·β·A_ij·f_i."""
    gradient = np.zeros_like(keys)
    for shot, label in zip(episode.unit_shots, episode.labels, strict=True):
        found = [sum(shot * text) / TEMPERATURE for text in episode.text]
        affinities = [math.exp(-BETA * (1 - sum(shot * key))) for key in keys]
        for affinity, other in zip(affinities, episode.labels, strict=True):
            found[other] += ALPHA * affinity
        powers = [math.exp(one) for one in found]
        for j, (affinity, other) in enumerate(zip(affinities, episode.labels, strict=True)):
            error = powers[other] / sum(powers) - (1.0 if other == label else 0.0)
            gradient[j] += error * ALPHA * BETA * affinity * shot / len(episode.labels)
    return gradient


def by_autograd(episode, start):
    keys = torch.tensor(start, requires_grad=True)
    fixed = [torch.from_numpy(part) for part in (episode.targets, episode.class_texts)]
    found = logits(torch.from_numpy(episode.unit_shots), keys, *fixed)
    loss = functional.cross_entropy(found, torch.from_numpy(episode.labels))
    loss.backward()
    return loss.item(), keys.grad.numpy()


def test_loss_and_gradient_equal_those_in_loops(episode):
    start = episode.unit_shots + 0.1
    loss, gradient = by_autograd(episode, start)
    assert loss == pytest.approx(loss_in_loops(episode, start), abs=1e-10)
    np.testing.assert_allclose(gradient, gradient_in_loops(episode, start), atol=1e-10)


def test_untrained_it_is_tip_adapter(episode):
    np.testing.assert_allclose(
        fit_predict(episode, epochs=0), tip_adapter.fit_predict(episode), atol=1e-12
    )


def test_one_epoch_is_one_step_of_adamw(episode):
    gradient = gradient_in_loops(episode, episode.unit_shots)
    # Adam's first step is the rate times g / (|g| + ε); AdamW decays by rate · 0.01 before.
    keys = episode.unit_shots * (1 - LEARNING_RATE * 0.01)
    keys -= LEARNING_RATE * gradient / (np.abs(gradient) + EPSILON)
    fixed = [torch.from_numpy(part) for part in (episode.targets, episode.class_texts)]
    found = logits(torch.from_numpy(episode.unit_queries), torch.from_numpy(keys), *fixed)
    np.testing.assert_allclose(
        fit_predict(episode, epochs=1), found.softmax(dim=1).numpy(), atol=1e-10
    )
