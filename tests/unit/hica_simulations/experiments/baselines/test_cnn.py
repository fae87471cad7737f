import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from hica_simulations.experiments.baselines import cnn
from hica_simulations.experiments.baselines.tuning import features


def started(episode):
    tower = episode.fresh_tower().train()
    head = nn.Linear(tower.tower.dim, 3, dtype=torch.float64)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        head.bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
    hidden = torch.from_numpy(episode.inputs.train[::3, 0])
    return tower, head, hidden, torch.from_numpy(episode.inputs.labels[::3])


def test_the_loss_equals_one_computed_in_loops(tuned_last):
    tower, head, hidden, labels = started(tuned_last)
    with torch.no_grad():
        found = cnn.loss(tower, head, hidden, labels).item()
        rows, weight, bias = features(tower, hidden).tolist(), head.weight.tolist(), head.bias
    expected = 0.0
    for row, label in zip(rows, labels.tolist(), strict=True):
        logits = [
            sum(x * w for x, w in zip(row, weight[c], strict=True)) + bias[c].item()
            for c in range(3)
        ]
        expected += math.log(sum(math.exp(one) for one in logits)) - logits[label]
    assert found == pytest.approx(expected / len(rows), abs=1e-10)


def test_the_gradient_is_that_of_finite_differences(tuned_last):
    tower, head, hidden, labels = started(tuned_last)
    cnn.loss(tower, head, hidden, labels).backward()
    weights = {**tower.trainable(), "head.weight": head.weight, "head.bias": head.bias}
    assert len(weights) > 5
    for weight in weights.values():
        place = int(weight.grad.abs().argmax())
        slope = weight.grad.view(-1)[place].item()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[place] += sign * 1e-7
                values.append(cnn.loss(tower, head, hidden, labels).item())
                weight.view(-1)[place] -= sign * 1e-7
        assert (values[0] - values[1]) / 2e-7 == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_what_is_frozen_has_no_gradient(tuned_last):
    tower, head, hidden, labels = started(tuned_last)
    cnn.loss(tower, head, hidden, labels).backward()
    touched = {name for name, weight in tower.named_parameters() if weight.grad is not None}
    assert touched == set(tower.trainable())
    assert not any(name.startswith("tower.layers.0") for name in touched)


def test_untrained_nothing_speaks_for_any_class(tuned_last):
    np.testing.assert_array_equal(cnn.fit_predict(tuned_last, epochs=0), 1 / 3)


def test_the_prediction_is_a_softmax_of_the_mean_logits_of_image_and_mirror_image(tuned_last):
    tower, head = cnn.fit(tuned_last, epochs=2)
    found = cnn.fit_predict(tuned_last, epochs=2)
    with torch.no_grad():
        for views, row in zip(torch.from_numpy(tuned_last.inputs.test), found, strict=True):
            logits = [head(features(tower, view[None]))[0] for view in views]
            expected = (sum(logits) / len(logits)).double().softmax(dim=0)
            np.testing.assert_allclose(row, expected, atol=1e-6)


def test_drawn_classes_are_told_apart_and_training_lowers_the_loss(tuned_last, tuned_truth):
    found = cnn.fit_predict(tuned_last, epochs=20)
    assert np.mean(found.argmax(axis=1) == tuned_truth) > 0.9
    assert -np.log(found[np.arange(len(found)), tuned_truth]).mean() < math.log(3)


def test_the_tower_given_stays_what_it_is(tuned_last):
    before = copy.deepcopy(tuned_last.start.state_dict())
    trained, _ = cnn.fit(tuned_last, epochs=1)
    after = tuned_last.start.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    names = list(tuned_last.start.trainable())
    assert all(not torch.equal(before[name], trained.state_dict()[name]) for name in names)


def test_torchs_own_generator_stays_where_it_was(tuned_last):
    before = torch.get_rng_state()
    cnn.fit(tuned_last, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
