import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from hica_simulations.experiments.baselines.episode import TEMPERATURE
from hica_simulations.experiments.baselines.fed_adapter import LEARNING_RATE, fit, logits, start


def test_the_adapter_equals_one_computed_in_loops(episode):
    adapter = start(8, seed=1)
    (w1, w2), dim = adapter.numpy(), range(8)
    expected = []
    for z in episode.unit_shots:
        hidden = [math.tanh(sum(w1[j, k] * z[k] for k in dim) + w1[j, 8]) for j in dim]
        powers = [math.exp(sum(w2[j, k] * hidden[k] for k in dim) + w2[j, 8]) for j in dim]
        adapted = [power / sum(powers) * one for power, one in zip(powers, z, strict=True)]
        length = math.sqrt(sum(one * one for one in adapted))
        expected.append(
            [
                sum(a * t for a, t in zip(adapted, text, strict=True)) / length / TEMPERATURE
                for text in episode.text
            ]
        )
    found = logits(torch.from_numpy(episode.unit_shots), adapter, torch.from_numpy(episode.text))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_one_site_equals_central_training(episode):
    alone = replace(episode, sites=np.zeros_like(episode.sites))
    shots, texts = torch.from_numpy(alone.unit_shots).float(), torch.from_numpy(alone.text).float()
    weights = start(8, alone.seed).float().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=LEARNING_RATE)
    for _ in range(6):
        optimiser.zero_grad()
        found = logits(shots, weights, texts)
        functional.cross_entropy(found, torch.from_numpy(alone.labels)).backward()
        optimiser.step()
    np.testing.assert_array_equal(fit(alone, 1, 6), weights.detach())


def test_training_lowers_the_loss(episode):
    shots, texts = torch.from_numpy(episode.unit_shots), torch.from_numpy(episode.text)
    labels = torch.from_numpy(episode.labels)
    losses = [
        functional.cross_entropy(logits(shots, fit(episode, rounds).double(), texts), labels).item()
        for rounds in (0, 20)
    ]
    assert losses[1] < losses[0]
