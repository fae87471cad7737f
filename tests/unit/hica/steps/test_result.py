import numpy as np
import pytest

from hica.errors import DataError
from hica.method.evaluation import site_metrics
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import predict
from hica.steps.plan import plan
from hica.steps.result import RESULT
from hica.steps.step import Answer
from hica.wire.details import Ended


def exact(site, probabilities):
    examples = site.examples("test")
    labels, groups = examples.labels.numpy(), list(examples.groups)
    return site_metrics(probabilities, labels, groups, 2, seed=0, min_count=1).to_dict()


def told(site, ask):
    return RESULT.answer(site, site.model, ask(site.study, RESULT, site.asked_with()))


def test_it_is_the_last_of_every_plan_and_asks_every_site(toy_study):
    turns = plan(toy_study())
    assert [turn.step for turn in turns].count(RESULT) == 1 and turns[-1].step is RESULT
    assert RESULT.role is None and RESULT.best_effort


def test_the_number_of_withdrawn_patients_is_all_that_leaves_and_metrics_are_exact(
    new_site, toy_study, ask
):
    site = new_site(toy_study("federation.min_count=9"))  # of which nothing may be told
    site.withdrawn = 9
    answer = told(site, ask)
    assert answer == Answer(details={"withdrawn": 9}, result=answer.result)
    assert answer.result == {
        "federated": exact(site, predict(site, site.model)),
        "zero_shot": None,
        "gain": None,
        "own_share": None,
        "why_none": "",
    }


@pytest.mark.parametrize(("withdrawn", "words"), [(0, 0), (1, "some"), (2, "some"), (3, 3)])
def test_few_withdrawn_patients_are_not_counted(new_site, toy_study, ask, withdrawn, words):
    site = new_site(toy_study("federation.min_count=3"))
    site.withdrawn = withdrawn
    details = told(site, ask).details
    assert details == Ended.read(details).model_dump() == {"withdrawn": words}


@pytest.mark.parametrize("withdrawn", [0, 1, 7])
def test_a_private_study_is_told_of_none(new_site, toy_study, ask, withdrawn):
    private = ["mechanism=dp-sgd", "epsilon=3.0", "delta=1e-3"]
    without = ["calibration.rounds=0", "pretraining.rounds=0"]
    site = new_site(toy_study(*(f"privacy.{each}" for each in private), *without))
    site.withdrawn = withdrawn
    assert told(site, ask).details == {"withdrawn": None}


def test_the_texts_alone_stand_beside_it_on_the_same_images(new_site, toy_study, ask):
    site = new_site(toy_study())
    before = np.tile([0.9, 0.1], (6, 1))
    images = site.images("test")
    site.state |= {"zero_shot": {"probabilities": before, "images": images}}
    assert told(site, ask).result["zero_shot"] == exact(site, before)
    site.state |= {"zero_shot": {"probabilities": before, "images": images[::-1]}}
    assert told(site, ask).result["zero_shot"] is None


def test_what_evaluation_keeps_of_the_texts_alone_is_what_is_read(new_site, toy_study, ask):
    site = new_site(toy_study())
    kept = EVALUATION.answer(site, site.model, ask(site.study, EVALUATION, site.asked_with())).keep
    site.state |= kept
    found = told(site, ask).result
    assert found["zero_shot"] == found["federated"]


def test_a_site_that_cannot_be_measured_has_its_answer_too(new_site, toy_study, ask, monkeypatch):
    site = new_site(toy_study())

    def unreadable(*_):
        raise DataError("a.png: cannot be read")

    monkeypatch.setattr(site, "embedded", unreadable)
    assert told(site, ask).result["why_none"] == "a.png: cannot be read"
    monkeypatch.setattr(site, "size", lambda _: 0)
    assert "holds out no images" in told(site, ask).result["why_none"]
