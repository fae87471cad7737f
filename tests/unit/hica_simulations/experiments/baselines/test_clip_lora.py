import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from hica.seeds import derived_seed
from hica.towers.lora import LoRA
from hica_simulations.experiments.baselines import clip_lora, zero_shot
from hica_simulations.experiments.baselines.episode import TEMPERATURE
from hica_simulations.experiments.baselines.tuning import batches


def merged(tower, factors):
    """The tower's own weights with W + (α / r)·B·A in place of every W: LoRA's paper, eq. 3."""
    weights = {name: value.detach() for name, value in tower.named_parameters()}
    for name, module in tower.named_modules():
        if isinstance(module, LoRA):
            a, b = (factors[f"{name}.lora_{part}.weight"] for part in "ab")
            product = (b.flatten(1) @ a.flatten(1)).view_as(module.base.weight)
            weights[f"{name}.base.weight"] = module.base.weight.detach() + 1 / 2 * product
            weights[f"{name}.lora_b.weight"] = torch.zeros_like(b)
    return weights


def unit(features, centre):
    return functional.normalize(features - centre, dim=1)


def test_untrained_it_is_zero_shot(tuned_lora):
    features_alone = tuned_lora.encoded(tuned_lora.start)
    np.testing.assert_allclose(
        clip_lora.fit_predict(tuned_lora, steps=0), zero_shot.fit_predict(features_alone), atol=1e-6
    )


def test_one_step_is_one_of_adamw_on_the_merged_weights(tuned_lora):
    tower, episode = tuned_lora.start, tuned_lora.inputs
    names = list(tower.trainable())
    leaves = {n: w.detach().clone().requires_grad_() for n, w in tower.trainable().items()}
    shots, labels = torch.from_numpy(episode.train), torch.from_numpy(episode.labels)
    texts = torch.from_numpy(episode.text)
    none = torch.zeros(len(shots), 0, tower.tower.grid, tower.tower.grid)

    def reference(pixels):
        return functional_call(tower, merged(tower, leaves), (pixels, none[: len(pixels)]))[0]

    # The centre: what each shot's features were when it was last seen.
    seen = torch.stack([reference(shots[:, view]).detach() for view in (0, 1)]).mean(dim=0)
    generator = torch.Generator().manual_seed(derived_seed(episode.seed, "clip_lora"))
    ((rows, pixels),) = batches(shots, clip_lora.BATCH_SIZE, 1, generator)
    found = reference(pixels)
    seen[rows] = found.detach()
    logits = unit(found, seen.mean(dim=0)) @ texts.T / TEMPERATURE
    loss = -logits.log_softmax(dim=1)[torch.arange(len(rows)), labels[rows]].mean()
    gradients = torch.autograd.grad(loss, [leaves[name] for name in names])

    trained = clip_lora.fit(tuned_lora, steps=1).trainable()
    rate, decay = clip_lora.LEARNING_RATE, clip_lora.WEIGHT_DECAY
    moved = 0
    for name, gradient in zip(names, gradients, strict=True):
        start = leaves[name].detach()
        # Adam's first step is the rate times g / (|g| + ε); AdamW decays before.
        expected = start * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
        # Where a gradient is but rounding, its sign is too.
        clear = (gradient.abs() > 1e-10) | (gradient == 0)
        np.testing.assert_allclose(trained[name].detach()[clear], expected[clear], atol=1e-8)
        moved += int((gradient != 0).sum())
    assert moved > 1000  # B alone: it starts at zero, and A has no gradient until it has moved


def test_rank_and_scale_are_the_papers(tuned_lora):
    layers = [module for module in tuned_lora.start.modules() if isinstance(module, LoRA)]
    assert layers and all(layer.scale == 1 / 2 for layer in layers)
    assert all(layer.lora_a.weight.shape[0] == 2 for layer in layers)


def test_gradients_flow_into_the_factors_alone(tuned_lora):
    tower = clip_lora.fit(tuned_lora, steps=3)
    before, after = tuned_lora.start.state_dict(), tower.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(tower.trainable())
    assert all("lora_a" in name or "lora_b" in name for name in changed)


def test_the_loss_is_that_of_zero_shot(tuned_lora):
    tower = tuned_lora.start
    found = tuned_lora.encoded(tower)
    queries, texts = torch.from_numpy(found.train[:, 0]), torch.from_numpy(found.class_texts)
    labels, centre = torch.from_numpy(found.labels), torch.from_numpy(found.shots.mean(axis=0))
    alone = replace(found, test=found.train[:, :1], test_sites=found.sites)
    likelihoods = zero_shot.fit_predict(alone)[np.arange(len(labels)), found.labels]
    value = clip_lora.loss(queries, centre, texts, labels).item()
    assert value == pytest.approx(-np.log(likelihoods).mean(), abs=1e-10)


def test_training_lowers_the_loss_of_the_shots(tuned_lora):
    def of(steps):
        found = tuned_lora.encoded(clip_lora.fit(tuned_lora, steps))
        rows, texts = torch.from_numpy(found.shots), torch.from_numpy(found.class_texts)
        return clip_lora.loss(rows, rows.mean(dim=0), texts, torch.from_numpy(found.labels)).item()

    assert of(40) < of(0)


def test_the_tower_given_and_torchs_own_generator_stay_what_they_are(tuned_lora):
    before, drawn = copy.deepcopy(tuned_lora.start.state_dict()), torch.get_rng_state()
    clip_lora.fit(tuned_lora, steps=2)
    after = tuned_lora.start.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_without_class_texts_it_says_so(tuned_lora):
    silent = replace(tuned_lora, inputs=replace(tuned_lora.inputs, text=None))
    with pytest.raises(ValueError, match="needs class texts"):
        clip_lora.fit_predict(silent, steps=1)
