import numpy as np
import pytest

from hica.steps.evaluation import EVALUATION
from hica.steps.personal import LOGITS, PERSONAL, mixed, predict
from hica.steps.predictions import logits, probabilities_of
from hica.steps.state import Bank
from hica.steps.step import Answer

FREE = ("calibration.rounds=0", "federation.min_count=1")


def own_logits(site, seed=0):
    rng = np.random.default_rng(seed)
    rows = {name: rng.normal(size=(site.size("test"), 2)) for name in ("personal", "alone")}
    return {**rows, "images": site.images("test")}


def test_a_site_predicts_with_all_three_models(new_site, toy_study):
    site = new_site(toy_study("personal.weight=0.25"))
    shared = logits(site, site.model)
    np.testing.assert_array_equal(predict(site, site.model), probabilities_of(shared))
    site.state |= {LOGITS: own_logits(site)}
    own = site.state[LOGITS]
    expected = 0.75 * shared + 0.125 * own["personal"] + 0.125 * own["alone"]
    np.testing.assert_allclose(mixed(site, shared), expected, rtol=1e-12)
    np.testing.assert_allclose(predict(site, site.model), probabilities_of(expected), rtol=1e-12)


def test_what_was_kept_is_of_its_image_in_whatever_order(new_site, toy_study):
    site = new_site(toy_study("personal.weight=1.0"))
    kept, order = own_logits(site), np.array([3, 1, 5, 0, 4, 2])
    site.state |= {LOGITS: {name: rows[order] for name, rows in kept.items()}}
    expected = (kept["personal"] + kept["alone"]) / 2
    np.testing.assert_array_equal(mixed(site, np.zeros((6, 2))), expected)


def test_an_image_that_the_site_was_not_adapted_with_is_left_to_the_shared_model(
    new_site, toy_study
):
    site = new_site(toy_study())
    site.state |= {LOGITS: {name: rows[1:] for name, rows in own_logits(site).items()}}
    shared = logits(site, site.model)
    np.testing.assert_array_equal(mixed(site, shared), shared)


def test_the_texts_alone_are_evaluated_without_it(new_site, toy_study, ask):
    site = new_site(toy_study())
    site.state |= {LOGITS: own_logits(site)}
    first, last = (
        EVALUATION.answer(site, site.model, ask(site.study, EVALUATION, site.asked_with(), number))
        for number in (0, 1)
    )
    shared = probabilities_of(logits(site, site.model))
    np.testing.assert_array_equal(first.keep["zero_shot"]["probabilities"], shared)
    assert "gain" not in first.details
    np.testing.assert_array_equal(
        last.keep["predictions"]["probabilities"], predict(site, site.model)
    )
    assert last.details["gain"]["personal"]["accuracy"] == last.details["accuracy"]


def test_of_a_private_study_only_the_shared_model_is_measured_for_others(new_site, toy_study, ask):
    """The site's own models have no noise: their metrics would tell of whom they learnt from."""
    study = toy_study("privacy.mechanism=dp-sgd", "privacy.epsilon=3", "privacy.delta=1e-3", *FREE)
    site, told = new_site(study), []
    request = ask(study, EVALUATION, site.asked_with(), 1)
    for seed in (1, 2):
        site.state |= {LOGITS: own_logits(site, seed)}
        answer = EVALUATION.answer(site, site.model, request)
        told.append(answer.details)
        predicted = answer.keep["predictions"]["probabilities"]
        np.testing.assert_array_equal(predicted, predict(site, site.model))
    assert told[0] == told[1] and told[0]["gain"] is None
    site.state.clear()
    assert EVALUATION.answer(site, site.model, request).details == told[0]


def test_a_site_whose_shots_cannot_be_read_keeps_and_says_nothing(new_site, toy_study, ask):
    site = new_site(toy_study(), labelled=[])
    request = ask(site.study, PERSONAL, site.asked_with())
    assert PERSONAL.answer(site, site.model, request) == Answer()


def test_a_site_that_did_not_train_has_no_gain(new_site, toy_study, ask):
    site = new_site(toy_study())
    found = EVALUATION.answer(site, site.model, ask(site.study, EVALUATION, site.asked_with(), 1))
    assert found.details["gain"] is None


def test_patients_of_a_small_class_are_in_no_comparison(new_site, toy_study, ask):
    site = new_site(toy_study("federation.min_count=3"))
    site.examples("test").labels[-1] = 0  # four of one class, two of the other
    site.state |= {LOGITS: own_logits(site)}
    request = ask(site.study, EVALUATION, site.asked_with(), 1)
    before = EVALUATION.answer(site, site.model, request).details["gain"]
    assert before["alone"]["auroc"] is None
    for name in ("personal", "alone"):
        site.state[LOGITS][name][site.examples("test").labels.numpy() == 1] *= -3
    assert EVALUATION.answer(site, site.model, request).details["gain"] == before


def test_nothing_leaves_and_the_texts_are_those_of_the_start(new_site, toy_study, ask, monkeypatch):
    site = new_site(toy_study())
    state, began_with = site.asked_with(), []
    rows = np.eye(2, state.width, dtype=np.float32), np.eye(4, state.width, dtype=np.float32)
    state = type(state)(**{**vars(state), "texts": Bank(*rows)})

    def alone(texts):
        began_with.append(texts)
        return site.model

    monkeypatch.setattr(site, "alone", alone, raising=False)
    monkeypatch.setattr(site, "adapted", lambda learnt: site.model, raising=False)
    answer = PERSONAL.answer(site, site.model, ask(site.study, PERSONAL, state))
    assert answer == Answer(keep=answer.keep)
    assert all(np.array_equal(*pair) for pair in zip(began_with[0], rows, strict=True))
    assert set(answer.keep) == {"personal", "alone", LOGITS}


@pytest.mark.parametrize("test", [[], ["q0"]])
def test_a_site_without_held_out_patients_keeps_its_model_and_compares_nothing(
    new_site, toy_study, ask, monkeypatch, test
):
    site = new_site(toy_study(), test=test)
    monkeypatch.setattr(site, "adapted", lambda learnt: site.model, raising=False)
    monkeypatch.setattr(site, "alone", lambda texts: site.model, raising=False)
    answer = PERSONAL.answer(site, site.model, ask(site.study, PERSONAL, site.asked_with()))
    assert (LOGITS in answer.keep) == bool(test)
