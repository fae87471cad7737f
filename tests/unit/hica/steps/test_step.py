from dataclasses import replace

import numpy as np
import pytest

from hica.errors import ConfigurationError, MessageError
from hica.steps.arrays import sums
from hica.steps.plan import STEPS
from hica.steps.state import State
from hica.steps.step import Answer, Stage, Statistic, Step, Turn
from hica.wire.messages import Reply


class Least(Step):
    """What has to be written of a step, and no more."""

    name = "least"
    kind = "train.least"
    role = "labelled"
    leaves = "one number"

    def turns(self, study):
        yield Turn(self, (Stage.END, 0), 0, self.name)

    def answers(self, study):
        return (sums((1,), 4.0),)

    def answer(self, data, model, request):
        return Answer({"sums": np.ones(1)}, 1)

    def combine(self, state, received):
        return replace(state, bias=received.arrays["sums"])


class Unbounded(Least, Statistic):
    name = "unbounded"


def test_a_step_says_at_least_when_it_is_asked_and_what_both_halves_do():
    for missing in ("turns", "answer", "combine"):
        part = type("Part", (Least,), {missing: getattr(Step, missing)})
        with pytest.raises(TypeError, match=missing):
            part()
    assert repr(Least()) == "<step least>"


def test_what_a_step_does_not_say_is_nothing(toy_study):
    step = Least()
    assert step.asks(toy_study()) == () and step.asked(toy_study(), State()) == {}
    assert step.told(None) == {}
    assert step.centred and step.in_sum and step.needs_noise


@pytest.mark.parametrize(("role", "most"), [("labelled", 2 * 5), ("unlabelled", 50), ("test", 50)])
def test_how_many_images_an_answer_may_stand_for_follows_from_the_role(toy_study, role, most):
    step = Least()
    step.role = role
    assert step.most_images(toy_study("alignment.shots=5", "pretraining.max_images=50")) == most


def test_an_answer_outside_its_declared_range_is_refused(toy_study):
    def reply(value):
        return Reply("train.least", "a", 0, 1, {}, {"sums": np.array([value])})

    study, step = toy_study(), Least()
    step.check(study, State(), reply(4.0))
    step.check(study, State(), reply(-12.0), sites=3)
    with pytest.raises(MessageError, match=r"array 'sums' holds values from 4\.5 to 4\.5, p"):
        step.check(study, State(), reply(4.5))
    private = ["privacy.mechanism=dp-sgd", "privacy.epsilon=3.0", "privacy.delta=1e-3"]
    step.check(toy_study(*private, "calibration.rounds=0"), State(), reply(4.5))


def test_a_statistic_without_a_bound_on_one_patient_has_no_rows():
    with pytest.raises(ConfigurationError, match="unbounded: nothing bounds what one patient"):
        Unbounded().rows(None, None, None)


def test_every_step_says_what_it_is():
    for step in STEPS:
        assert step.name and step.role in ("labelled", "unlabelled", "test", None)
        assert isinstance(step.leaves, str) and isinstance(step.in_sum, bool)
        assert step.kind == "" or step.kind.split(".")[0] in ("train", "evaluate")
