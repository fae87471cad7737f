import numpy as np
import pytest

from hica.errors import MessageError
from hica.method.calibration import curvature, newton_step
from hica.steps.calibration import CALIBRATION
from hica.steps.predictions import class_scores
from hica.steps.state import State
from hica.steps.step import Answer
from hica.wire.messages import Reply


def answer_of(scores, labels, bias):
    parts = curvature(scores, labels, bias)
    return Answer({"gradient": parts.gradient, "hessian": parts.hessian}, parts.images)


@pytest.fixture
def sites():
    """Scores and labels of two sites' shots."""
    draws = np.random.default_rng(0)
    return {
        name: (draws.normal(size=(size, 2)), np.arange(size) % 2)
        for name, size in (("a", 4), ("b", 7))
    }


def test_the_answer_is_the_curvature_of_the_shots_at_the_intercepts_sent(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    state = site.asked_with()
    state.bias[:] = [3.0, -3.0]
    answer = CALIBRATION.answer(site, site.model, ask(study, CALIBRATION, state))
    scores = class_scores(site, "labelled", site.model).double().numpy()
    expected = curvature(scores, site.parts["labelled"].labels.numpy(), np.array([3.0, -3.0]))
    np.testing.assert_array_equal(answer.arrays["gradient"], expected.gradient)
    np.testing.assert_array_equal(answer.arrays["hessian"], expected.hessian)
    assert answer.examples == 4
    assert set(site.looked) == {"labelled"}


def test_intercepts_take_the_newton_steps_of_pooled_scores(sites, toy_study, receive):
    study = toy_study("calibration.ridge=0.1")
    state, pooled = State(bias=np.zeros(2)), np.zeros(2)
    scores, labels = map(np.concatenate, zip(*sites.values(), strict=True))
    for number in range(3):
        answers = {name: answer_of(*rows, state.bias) for name, rows in sites.items()}
        state = CALIBRATION.combine(state, receive(study, CALIBRATION, answers, number))
        pooled = newton_step(pooled, [curvature(scores, labels, pooled)], 0.1)
        np.testing.assert_allclose(state.bias, pooled, rtol=0, atol=1e-13)
    assert np.abs(pooled).max() > 0.01


def test_the_number_of_images_of_a_secure_sum_is_rounded(sites, toy_study, receive):
    answer = answer_of(*sites["b"], np.zeros(2))
    exact, rounded = (
        CALIBRATION.combine(
            State(bias=np.zeros(2)), receive(toy_study(), CALIBRATION, {"b": answer}, examples=n)
        ).bias
        for n in (7.0, 7.0000001)
    )
    np.testing.assert_array_equal(exact, rounded)


def reply(sites, **changes):
    answer = answer_of(*sites["a"], np.zeros(2))
    examples = changes.pop("examples", answer.examples)
    return Reply(CALIBRATION.kind, "a", 0, examples, {}, answer.arrays | changes)


def test_sums_that_images_can_have_are_let_through(sites, toy_study):
    CALIBRATION.check(toy_study(), State(), reply(sites))
    CALIBRATION.check(toy_study(), State(), reply(sites, examples=12), sites=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 0}, "over 0 images"),
        ({"gradient": np.array([9.0, -9.0])}, "up to 9 over 4 images: each adds at most 1"),
        ({"gradient": np.full(3, 4.0)}, "has norm 1.73 an image, possible is 1.42"),
        ({"hessian": np.full((2, 2), 5.0)}, "up to 5 over 4 images: each adds at most 1"),
        ({"hessian": np.array([[0.5, 0.5], [-0.5, 0.5]])}, "not positive semi-definite"),
        ({"hessian": np.array([[0.5, 0.9], [0.9, 0.5]])}, "not positive semi-definite"),
        ({"gradient": np.array([1e6, 0.0])}, "array 'gradient' holds values from 0 to 1e+06"),
    ],
)
def test_sums_that_no_images_could_have_are_refused(sites, toy_study, changes, words):
    with pytest.raises(MessageError) as error:
        CALIBRATION.check(toy_study(), State(), reply(sites, **changes))
    assert words in str(error.value)


def test_a_step_for_every_round(toy_study, turns):
    study = toy_study("calibration.rounds=3")
    assert [turn.round for turn in turns(study, CALIBRATION)] == [0, 1, 2]
    assert [turn.title for turn in turns(study, CALIBRATION)][-1] == "calibration 3/3"
