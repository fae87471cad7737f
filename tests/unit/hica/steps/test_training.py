import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hica.errors import MessageError
from hica.steps.alignment import ALIGNMENT
from hica.steps.pretraining import PRETRAINING
from hica.steps.state import State
from hica.steps.step import Answer
from hica.steps.training import ALL_SITES, texts_of
from hica.wire.messages import Reply

PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
]
STATE = State(shared={"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)})


@pytest.fixture
def toy_study(toy_study):
    """A round of it moves weights as far as the made-up updates below."""
    return lambda *overrides: toy_study("alignment.learning_rate=100.0", *overrides)


def update(step=1.0, loss=0.5, examples=4):
    arrays = {f"shared.{name}": value + np.float32(step) for name, value in STATE.shared.items()}
    return Answer(arrays, examples, {} if loss is None else {"loss": loss})


def reply(**changes):
    sent = update()
    good = Reply(ALIGNMENT.kind, "a", 0, sent.examples, sent.details, sent.arrays)
    return replace(good, **changes)


# --- Rounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [PRETRAINING, ALIGNMENT])
def test_the_rate_falls_as_half_a_cosine_over_the_stage(toy_study, turns, step):
    study = toy_study("alignment.rounds=4", "pretraining.rounds=4")
    rates = [turn.settings["rate"] for turn in turns(study, step)]
    assert rates == pytest.approx([(1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)])
    assert [turn.round for turn in turns(study, step)] == [0, 1, 2, 3]


# --- At the site ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "dtype"), [("single", "float32"), ("half", "float16")])
def test_weights_are_told_in_the_precision_they_came_in(new_site, toy_study, ask, precision, dtype):
    study = toy_study(f"federation.precision={precision}")
    site = new_site(study)

    def train(model, lesson):
        with torch.no_grad():
            for weight in model.shared().values():
                weight.fill_(0.1)
        return 0.75

    request = ask(study, ALIGNMENT, site.asked_with())
    answer = ALIGNMENT.taught(site, site.model, request, train)
    assert answer.arrays.keys() == {f"shared.{name}" for name in site.model.shared()}
    for value in answer.arrays.values():
        assert str(value.dtype) == dtype and np.unique(value) == np.array(0.1, dtype)
        assert value.flags.c_contiguous
    assert (answer.examples, answer.details) == (4, {"loss": 0.75})


def test_a_loss_that_may_not_be_told_is_not(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    request = ask(study, ALIGNMENT, site.asked_with())
    answer = ALIGNMENT.taught(site, site.model, request, lambda model, lesson: None)
    assert answer.details == {}


def test_training_is_not_answered_without_a_trainer(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    with pytest.raises(TypeError, match="answered with a trainer"):
        ALIGNMENT.answer(site, site.model, ask(study, ALIGNMENT, site.asked_with()))


def test_the_texts_that_a_bank_is_pulled_to_are_those_that_were_sent(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    state = site.asked_with()
    classes, findings = texts_of(ask(study, ALIGNMENT, state), site.model)
    np.testing.assert_array_equal(classes, state.bank.classes)
    np.testing.assert_array_equal(findings, state.bank.findings)


# --- At the coordinator --------------------------------------------------------------------------


def test_a_good_update_is_let_through(toy_study):
    ALIGNMENT.check(toy_study(), STATE, reply())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 0}, "an update that no example stands behind"),
        ({"details": {}}, "loss is None"),
        ({"details": {"loss": "low"}}, "loss is 'low'"),
        ({"details": {"loss": 1}}, "loss is 1"),
        ({"details": {"loss": float("nan")}}, "loss is nan"),
        ({"details": {"loss": math.inf}}, "loss is inf"),
        ({"arrays": update(20.0).arrays}, "update of norm 63.2, federation.max_update_norm is 50"),
    ],
)
def test_a_bad_update_is_refused_in_words(toy_study, changes, words):
    with pytest.raises(MessageError) as error:
        ALIGNMENT.check(toy_study("federation.max_update_norm=50"), STATE, reply(**changes))
    assert words in str(error.value)


def test_a_private_site_tells_no_loss_and_needs_none(toy_study):
    ALIGNMENT.check(toy_study(*PRIVATE), STATE, reply(details={}))


def test_of_a_sum_over_sites_only_the_examples_are_looked_at(toy_study):
    study = toy_study("federation.max_update_norm=1")
    ALIGNMENT.check(study, STATE, reply(details={}), sites=3)
    with pytest.raises(MessageError, match="no example stands behind"):
        ALIGNMENT.check(study, STATE, reply(examples=0), sites=3)


def test_the_rule_of_the_study_makes_the_next_weights(toy_study, receive):
    answers = {"a": update(2.0), "b": update(3.0)}
    received = receive(toy_study(), ALIGNMENT, answers, number=1)
    state = ALIGNMENT.combine(STATE, received)
    assert received.rule.given == [(1, ["a", "b"])]
    assert state.shared.keys() == STATE.shared.keys()
    np.testing.assert_array_equal(state.shared["a"], STATE.shared["a"] + 2.0)
    assert state.optimiser["rounds"].tolist() == [1]


def test_of_a_secure_sum_the_rule_sees_one_update_of_all_sites(toy_study, receive):
    mean = {name: value + 0.5 for name, value in STATE.shared.items()}
    received = receive(toy_study(), ALIGNMENT, {}, arrays=mean, examples=11.999999999, sites=3)
    state = ALIGNMENT.combine(STATE, received)
    assert received.rule.given == [(0, [ALL_SITES])]
    np.testing.assert_array_equal(state.shared["b"], mean["b"])


def test_the_loss_is_per_image_and_of_each_site(toy_study, receive):
    answers = {"a": update(loss=1.0, examples=1), "b": update(loss=2.0, examples=3)}
    told = ALIGNMENT.told(receive(toy_study(), ALIGNMENT, answers))
    assert told["loss"] == pytest.approx((1 * 1.0 + 3 * 2.0) / 4)
    assert told["site_loss"] == {"a": 1.0, "b": 2.0}
    assert told["lora_discarded"] == 0.25


def test_of_a_secure_sum_the_loss_is_that_of_all_images(toy_study, receive):
    told = ALIGNMENT.told(receive(toy_study(), ALIGNMENT, {}, examples=4.0, loss=7.0))
    assert told == {"loss": 1.75, "site_loss": {}, "lora_discarded": 0.0}


def test_no_loss_is_told_of_a_private_study(toy_study, receive):
    study = toy_study(*PRIVATE)
    answers = {"a": update(loss=None)}
    expected = {"loss": None, "site_loss": {}, "lora_discarded": 0.25}
    assert ALIGNMENT.told(receive(study, ALIGNMENT, answers)) == expected
    assert ALIGNMENT.told(receive(study, ALIGNMENT, {}, examples=4.0)) == {
        **expected,
        "lora_discarded": 0.0,
    }
