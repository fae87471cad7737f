"""C, number 10: an active coordinator, whose weights are made to tell of single images."""

import numpy as np
import pytest
import torch

from hica.errors import MessageError
from hica.method.local_training import train
from hica.steps.alignment import ALIGNMENT, loss_of, schedule_of
from hica.steps.state import Bank, State
from hica.wire.messages import Request
from hica.wire.weight_names import BANK_CLASSES
from hica_client.app import answer
from hica_simulations.experiments.audit.trap import (
    AUDIBLE,
    QUIET,
    bins,
    cosines,
    embeddings,
    gradient_of_step,
    known_of,
    probes,
    window,
)

from .conftest import PRIVATE, WIDTH

BINS = 64
STUDY = (
    "pretraining.rounds=0",
    "calibration.rounds=0",
    f"model.adapter_width={BINS}",
    "alignment.views=1",
    "alignment.flip_at_test=false",
    "alignment.local_epochs=1",
    "alignment.batch_size=64",
)


@pytest.fixture
def attacked(hospital):
    """A hospital, what is known of another one's images, and the truth."""

    def attacked(*overrides):
        site, other = (hospital(*STUDY, *overrides) for _ in range(2))
        known = known_of([other.session.examples("labelled")], site.study.privacy.is_private)
        return site, known, embeddings(site.session.examples("labelled"), known)

    return attacked


def crafted(site, known):
    """Weights and arrays of the trap of many bins."""
    state = site.state()
    trap = bins(known, torch.from_numpy(state.bank.classes), BINS, torch.from_numpy(state.centre))
    return trap, *numbers_of(site, trap)


def allowed(site, known, seed=0, up=QUIET):
    """The same within what is allowed in the second round."""
    trap = probes(known, 2, BINS, seed, up)
    return trap, *numbers_of(site, trap)


def numbers_of(site, trap):
    """Weights, all others as the study starts, and arrays of a trap's request."""
    start = {k: v for k, v in site.session.start.items() if k.startswith("tower.")}
    weights = start | {name: value.numpy() for name, value in trap.weights.items()}
    arrays = {"centre": trap.centre.numpy(), "scale": trap.scale.numpy()}
    if trap.classes is not None:
        weights[BANK_CLASSES] = arrays["anchor.classes"] = trap.classes.numpy()
    return weights, arrays


def recovered(site, trap, weights, trained, truth, share=1.0):
    """Images whose embedding the change of the weights tells; `share` is of the learning rate."""
    sent = {k: torch.from_numpy(v) for k, v in site.state(**weights).shared.items()}
    change = {name: torch.as_tensor(trained[name]).double() - sent[name] for name in sent}
    stage = site.study.alignment
    gradient = gradient_of_step(change, sent, share * stage.learning_rate, stage.weight_decay)
    return int((cosines(trap.read(gradient), truth) > 0.99).sum())


def unchecked(site, weights, arrays):
    """What a client would send that checks nothing."""
    state = site.state(**weights)
    classes = arrays.get("anchor.classes", state.bank.classes)
    bank = Bank(classes, state.bank.findings)
    model = site.session.model(
        State(state.shared, bank, arrays["centre"], arrays["scale"], state.bias)
    )
    order, study = torch.Generator().manual_seed(0), site.study
    train(model, site.session.examples("labelled"), loss_of(study), schedule_of(study), order)
    return {name: value.detach() for name, value in model.shared().items()}


@pytest.mark.parametrize("overrides", [(), PRIVATE])
def test_10_crafted_weights_are_refused_before_an_image_is_touched(
    attacked, monkeypatch, overrides
):
    site, known, _ = attacked(*overrides)
    _, weights, arrays = crafted(site, known)
    monkeypatch.setattr(site.session, "examples", None)
    with pytest.raises(MessageError, match="training can move it by"):
        site.asked(ALIGNMENT, arrays=arrays, **weights)


def test_10_what_is_allowed_tells_fewer_images_than_what_was(attacked):
    """Crafted weights gave 17 of 40 embeddings from one `train.align`."""
    site, known, truth = attacked()
    trap, weights, arrays = crafted(site, known)
    before = recovered(site, trap, weights, unchecked(site, weights, arrays), truth)
    trap, weights, arrays = allowed(site, known)
    reply = site.asked(ALIGNMENT, 1, arrays, **weights).arrays
    trained = {name.removeprefix("shared."): value for name, value in reply.items()}
    now = recovered(site, trap, weights, trained, truth, share=0.5)
    assert now <= 1 < before


@pytest.mark.parametrize("number", [0, 1])
def test_10_a_window_on_one_feature_is_refused(attacked, monkeypatch, number):
    """Its scale lets one feature decide; a study that does not scale has a scale of 1."""
    site, known, _ = attacked()
    weights, arrays = numbers_of(site, window(known, 2, BINS, 0.4))
    monkeypatch.setattr(site.session, "examples", None)
    with pytest.raises(MessageError, match="array 'scale' is not as it is in this study"):
        site.asked(ALIGNMENT, number, arrays, **weights)


def test_10_before_any_training_probes_are_refused(attacked, monkeypatch):
    site, known, _ = attacked()
    _, weights, arrays = allowed(site, known)
    monkeypatch.setattr(site.session, "examples", None)
    with pytest.raises(MessageError, match=r"'tower.adapter.up.weight' has moved by"):
        site.asked(ALIGNMENT, arrays=arrays, **weights)


def test_10_a_turn_is_answered_to_one_request_only(attacked):
    site, known, _ = attacked()
    _, weights, arrays = allowed(site, known)
    first = site.asked(ALIGNMENT, 1, arrays, **weights)
    for seed in range(1, 10):
        _, others, moved = allowed(site, known, seed)
        with pytest.raises(MessageError, match="each turn of a study is answered once"):
            site.asked(ALIGNMENT, 1, moved, **others)
    again = site.asked(ALIGNMENT, 1, arrays, **weights)
    assert all(np.array_equal(first.arrays[name], again.arrays[name]) for name in first.arrays)


@pytest.mark.parametrize("rate", [1e6, -1.0, 0.999])
def test_10_a_rate_that_is_no_turn_s_is_refused(attacked, monkeypatch, rate):
    site, known, _ = attacked()
    _, weights, arrays = allowed(site, known)
    content = {**site.state(**weights).arrays(), **arrays}
    monkeypatch.setattr(site.session, "examples", None)
    with pytest.raises(MessageError, match="never asks for"):
        answer(site.session, Request(ALIGNMENT.kind, site.study, 1, {"rate": rate}, content))


def test_10_under_noise_an_allowed_request_tells_nothing(attacked):
    site, known, truth = attacked(*PRIVATE)
    trap, weights, arrays = allowed(site, known, up=AUDIBLE)
    reply = site.asked(ALIGNMENT, 1, arrays, **weights).arrays
    trained = {name.removeprefix("shared."): value for name, value in reply.items()}
    assert recovered(site, trap, weights, trained, truth, share=0.5) == 0
    assert truth.shape[2] == WIDTH
