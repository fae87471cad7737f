import numpy as np
import pytest
import torch

from hica.errors import MessageError
from hica.method.evaluation import site_metrics
from hica.method.site_metrics import SiteMetrics
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import predict
from hica.steps.predictions import class_scores, intercepts
from hica.steps.state import State
from hica.steps.step import Answer
from hica.wire.messages import Reply


def metrics_of(size, sure=0.8):
    truth = np.arange(size) % 2
    groups = [str(i) for i in range(size)]
    probabilities = np.eye(2)[truth] * sure + (1 - sure) / 2
    return site_metrics(probabilities, truth, groups, 2, seed=0, min_count=1)


def answer_of(size):
    return Answer({}, size, metrics_of(size).to_dict())


# --- At the site ---------------------------------------------------------------------------------


def test_metrics_leave_and_predictions_stay(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    answer = EVALUATION.answer(site, site.model, ask(study, EVALUATION, site.asked_with()))
    assert answer.arrays == {} and answer.examples == 6
    assert SiteMetrics.from_dict(answer.details, 2, "north").counts == (3, 3)
    kept = answer.keep["zero_shot"]  # those of the end are kept beside them
    np.testing.assert_array_equal(kept["probabilities"], predict(site, site.model))
    assert kept["labels"].tolist() == [0, 1, 0, 1, 0, 1]
    assert set(site.looked) == {"test"}


def test_images_of_a_class_of_few_patients_are_kept_and_not_measured(new_site, toy_study, ask):
    study = toy_study("federation.min_count=3")
    site = new_site(study)
    site.examples("test").labels[-1] = 0  # four of one class, two of the other
    answer = EVALUATION.answer(site, site.model, ask(study, EVALUATION, site.asked_with()))
    assert answer.examples == answer.details["n"] == 4
    assert answer.details["counts"] == (4, None) and answer.details["confusion"] is None
    assert len(answer.keep["zero_shot"]["labels"]) == 6


def test_intercepts_move_predictions(new_site, toy_study):
    site = new_site(toy_study())
    for first, bias in ((1.0, [50.0, -50.0]), (0.0, [-50.0, 50.0])):
        site.model.bias.copy_(torch.tensor(bias))
        assert predict(site, site.model)[:, 0] == pytest.approx(np.full(6, first), abs=1e-6)


def test_probabilities_are_softmax_of_scores_over_temperature(new_site, toy_study):
    site = new_site(toy_study("alignment.temperature=0.2", "alignment.region_blend=0.0"))
    batch = site.embedded("test", site.model)
    scores = batch.images @ site.model.unit_bank()[0].T / 0.2
    torch.testing.assert_close(class_scores(site, "test", site.model), scores.detach())
    assert not class_scores(site, "test", site.model).requires_grad
    expected = torch.softmax(scores.detach(), dim=-1).numpy()
    np.testing.assert_allclose(predict(site, site.model), expected, rtol=1e-6)


def test_a_site_that_knows_its_prevalence_has_intercepts_of_its_own(new_site, toy_study):
    site = new_site(toy_study(), rest=[f"r{i}" for i in range(12)])
    site.rest_shares = np.array([0.2, 0.8])
    site.model.bias.copy_(torch.tensor([50.0, -50.0]))  # the federation's do not matter
    own = intercepts(site, site.model)
    scores = class_scores(site, "rest", site.model)
    mean = torch.softmax(scores + own, dim=-1).mean(dim=0)
    assert mean.tolist() == pytest.approx([0.2, 0.8], abs=1e-3)
    site.rest_shares = None
    assert intercepts(site, site.model).tolist() == [50.0, -50.0]


# --- At the coordinator --------------------------------------------------------------------------


def test_metrics_of_all_sites_are_kept_and_joined(toy_study, receive):
    answers = {"a": answer_of(10), "b": answer_of(30)}
    state = EVALUATION.combine(State(), receive(toy_study(), EVALUATION, answers))
    kept = state.evaluations["zero_shot"]
    assert {site: table["n"] for site, table in kept["per_site"].items()} == {"a": 10, "b": 30}
    assert kept["overall"]["n"] == 40
    assert kept["overall"]["accuracy"]["value"] == 1.0


def test_the_second_evaluation_stands_beside_the_first(toy_study, receive):
    state = State()
    for number in (0, 1):
        received = receive(toy_study(), EVALUATION, {"a": answer_of(10)}, number)
        state = EVALUATION.combine(state, received)
    assert list(state.evaluations) == ["zero_shot", "final"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 5}, "counts: they sum to 6, but n is 5"),
        ({"counts": [2, 2, 2]}, "counts"),
    ],
)
def test_metrics_that_contradict_themselves_are_refused(toy_study, changes, words):
    details = metrics_of(6).to_dict()
    EVALUATION.check(toy_study(), State(), Reply(EVALUATION.kind, "a", 0, 6, details))
    with pytest.raises(MessageError) as error:
        EVALUATION.check(toy_study(), State(), Reply(EVALUATION.kind, "a", 0, 6, details | changes))
    assert words in str(error.value)


def test_metrics_are_neither_summed_nor_noisy():
    """They are reported for every site, and hidden where they are of too few patients."""
    assert not EVALUATION.in_sum and not EVALUATION.needs_noise
