import numpy as np

from hica.errors import DataError
from hica.method.evaluation import site_metrics
from hica.steps.evaluation import EVALUATION, predict
from hica.steps.plan import plan
from hica.steps.result import RESULT
from hica.steps.step import Answer


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
    site.withdrawn = 2
    answer = told(site, ask)
    assert answer == Answer(details={"withdrawn": 2}, result=answer.result)
    assert answer.result == {
        "federated": exact(site, predict(site, site.model)),
        "zero_shot": None,
        "why_none": "",
    }


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
