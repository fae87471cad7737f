from dataclasses import replace

import numpy as np
import pytest

from hica.method.shrinkage import ClassMeans, own_share
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import (
    LEAST,
    LOGITS,
    OWN,
    PERSONAL,
    intercepts_of,
    mixed,
    predict,
    share_of,
)
from hica.steps.predictions import logits, probabilities_of
from hica.steps.prototypes import MEANS
from hica.steps.state import Bank
from hica.steps.step import Answer

FREE = ("calibration.rounds=0", "federation.min_count=1")


def own_logits(site, seed=0):
    rng = np.random.default_rng(seed)
    rows = {name: rng.normal(size=(site.size("test"), 2)) for name in ("personal", "alone")}
    return {**rows, "images": site.images("test")}


def keep_own(site, share, rows=None, intercepts=(0.0, 0.0)):
    """As `train.personal` leaves it."""
    kept = own_logits(site) if rows is None else rows
    own = {"share": np.array([share]), "intercepts": np.array(intercepts)}
    site.state |= {LOGITS: kept, OWN: own}


def test_a_site_predicts_with_all_three_models(new_site, toy_study):
    site = new_site(toy_study())
    shared = logits(site, site.model)
    np.testing.assert_array_equal(predict(site, site.model), probabilities_of(shared))
    keep_own(site, 0.25, intercepts=(0.0, -1.5))
    own = site.state[LOGITS]
    bias = np.array([0.0, -1.5])
    expected = 0.75 * (shared + bias) + 0.25 * ((own["personal"] + own["alone"]) / 2 + bias)
    np.testing.assert_allclose(mixed(site, shared), expected, rtol=1e-12)
    np.testing.assert_allclose(predict(site, site.model), probabilities_of(expected), rtol=1e-12)


def test_what_was_kept_is_of_its_image_in_whatever_order(new_site, toy_study):
    site = new_site(toy_study())
    kept, order = own_logits(site), np.array([3, 1, 5, 0, 4, 2])
    keep_own(site, 1.0, {name: rows[order] for name, rows in kept.items()})
    expected = (kept["personal"] + kept["alone"]) / 2
    np.testing.assert_array_equal(mixed(site, np.zeros((6, 2))), expected)


def test_an_image_that_the_site_was_not_adapted_with_is_left_to_the_shared_model(
    new_site, toy_study
):
    site = new_site(toy_study())
    keep_own(site, 0.5, {name: rows[1:] for name, rows in own_logits(site).items()})
    shared = logits(site, site.model)
    np.testing.assert_array_equal(mixed(site, shared), shared)


def test_the_texts_alone_are_evaluated_without_it(new_site, toy_study, ask):
    site = new_site(toy_study())
    keep_own(site, 0.5)
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
        keep_own(site, 0.5, own_logits(site, seed))
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
    keep_own(site, 0.5)
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
    state = replace(state, texts=Bank(*rows))

    def alone(texts):
        began_with.append(texts)
        return site.model

    monkeypatch.setattr(site, "alone", alone, raising=False)
    monkeypatch.setattr(site, "adapted", lambda learnt: site.model, raising=False)
    answer = PERSONAL.answer(site, site.model, ask(site.study, PERSONAL, state))
    assert answer == Answer(keep=answer.keep)
    assert all(np.array_equal(*pair) for pair in zip(began_with[0], rows, strict=True))
    assert set(answer.keep) == {"personal", "alone", LOGITS, OWN}


@pytest.mark.parametrize("test", [[], ["q0"]])
def test_a_site_without_held_out_patients_keeps_its_model_and_compares_nothing(
    new_site, toy_study, ask, monkeypatch, test
):
    site = new_site(toy_study(), test=test)
    monkeypatch.setattr(site, "adapted", lambda learnt: site.model, raising=False)
    monkeypatch.setattr(site, "alone", lambda texts: site.model, raising=False)
    answer = PERSONAL.answer(site, site.model, ask(site.study, PERSONAL, site.asked_with()))
    assert (LOGITS in answer.keep) == bool(test)


# --- How much a site's own models weigh ----------------------------------------------------------


def asked_to_adapt(site, ask, means=None, sites=3):
    """The request of a coordinator that has class means of so many sites."""
    state = site.asked_with()
    means = np.eye(2, state.width, dtype=np.float32) if means is None else means
    return ask(site.study, PERSONAL, replace(state, means=means, sites=sites))


def test_own_models_weigh_what_the_class_means_say(new_site, toy_study, ask):
    site = new_site(toy_study())
    request = asked_to_adapt(site, ask)
    rows = np.random.default_rng(0).normal(size=request.arrays["means"].shape)
    own = ClassMeans(rows, np.array([4.0, 2.0]))
    site.state |= {MEANS: own._asdict()}
    expected = own_share(own, request.arrays["means"], 3)
    assert LEAST < expected < 1 and share_of(site, request) == expected


def test_own_models_never_weigh_less_than_a_third_by_measure(new_site, toy_study, ask):
    site = new_site(toy_study())
    request = asked_to_adapt(site, ask)
    own = ClassMeans(request.arrays["means"].astype(float), np.array([4.0, 2.0]))
    site.state |= {MEANS: own._asdict()}
    assert own_share(own, request.arrays["means"], 3) == 0.0
    assert share_of(site, request) == LEAST == 1 / 3


def test_a_site_that_was_not_there_when_the_means_were_summed_takes_the_least(
    new_site, toy_study, ask
):
    site = new_site(toy_study())
    assert share_of(site, asked_to_adapt(site, ask)) == LEAST


def test_a_study_may_say_the_weight(new_site, toy_study, ask):
    site = new_site(toy_study("personal.weight=0.25"))
    assert share_of(site, asked_to_adapt(site, ask)) == 0.25


def test_without_class_means_own_models_weigh_as_much_as_the_shared_one(new_site, toy_study, ask):
    study = toy_study("alignment.bank_start=text")
    site = new_site(study)
    request = ask(study, PERSONAL, site.asked_with())
    assert "means" not in request.arrays and share_of(site, request) == 0.5


# --- Own intercepts ------------------------------------------------------------------------------


def test_even_shots_leave_the_intercepts_as_they_are(new_site, toy_study, ask):
    site = new_site(toy_study())
    np.testing.assert_array_equal(intercepts_of(site, asked_to_adapt(site, ask)), 0.0)


def test_a_class_that_ran_short_is_expected_to_be_rare(new_site, toy_study, ask):
    site = new_site(toy_study(), labelled=["p0", "p1", "p2"])
    found = intercepts_of(site, asked_to_adapt(site, ask))
    np.testing.assert_allclose(found, [0.0, np.log(2 / 3)], rtol=1e-12)


def test_a_class_that_no_site_has_seen_is_not_taken_for_rare(new_site, toy_study, ask):
    site = new_site(toy_study())
    site.examples("labelled").labels[:] = 0
    means = np.eye(2, site.asked_with().width, dtype=np.float32)
    assert intercepts_of(site, asked_to_adapt(site, ask, means))[1] < 0
    means[1] = 0
    np.testing.assert_array_equal(intercepts_of(site, asked_to_adapt(site, ask, means)), 0.0)


def test_a_site_that_knows_its_prevalence_does_not_guess(new_site, toy_study, ask):
    site = new_site(toy_study(), labelled=["p0", "p1", "p2"])
    site.rest_shares = np.array([0.5, 0.5])
    np.testing.assert_array_equal(intercepts_of(site, asked_to_adapt(site, ask)), 0.0)
