import pytest

from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import all_kinds, kinds_asked
from hica.steps.pretraining import PRETRAINING
from hica.wire.messages import SECURE_SUM
from hica_client.policy import arrays_of, conflicts, may_leave
from hica_client.site import PolicySection

PRIVATE = ["privacy.epsilon=3.0", "privacy.delta=1e-5", "calibration.rounds=0"]


def test_the_policy_of_a_new_site_allows_a_new_study(toy_study):
    assert conflicts(PolicySection(), toy_study("federation.min_count=5")) == []


def test_the_arrays_of_an_answer_are_those_that_its_step_declares(toy_study):
    study = toy_study()
    assert arrays_of(CENTRE, study) == ["sums", "counts"]
    scaled = toy_study("alignment.scaling=global")
    assert arrays_of(CENTRE, scaled) == ["sums", "counts", "squares"]
    assert arrays_of(ASSIGN, study) == arrays_of(EVALUATION, study) == []
    bank = ["shared.bank.classes", "shared.bank.findings"]
    assert arrays_of(ALIGNMENT, study) == ["shared.tower.*", *bank]
    assert arrays_of(ALIGNMENT, toy_study("alignment.train_text_bank=false")) == ["shared.tower.*"]


def test_squares_that_are_held_back_matter_where_the_study_scales(toy_study):
    patterns = ("sums", "counts", "gradient", "hessian", "shared.*")
    policy = PolicySection(tensors=patterns, min_count=3)
    assert conflicts(policy, toy_study()) == []
    [words] = conflicts(policy, toy_study("alignment.scaling=global"))
    assert "needs the arrays squares, which policy.tensors does not allow" in words


def test_counts_of_too_few_patients(toy_study):
    [words] = conflicts(PolicySection(), toy_study())
    assert "shows counts of 3 patients (federation.min_count)" in words
    assert "policy.min_count is 5" in words and "the site file" in words


def test_kinds_that_are_needed_but_not_allowed(toy_study):
    policy = PolicySection(kinds=("query.capabilities", "train.moments"), min_count=3)
    [words] = conflicts(policy, toy_study())
    assert "needs evaluate.metrics, train.clusters, train.pretrain" in words
    assert "policy.kinds" in words


def test_a_kind_that_is_not_needed_may_be_forbidden(toy_study):
    others = (LLOYD.kind, PRETRAINING.kind)
    kinds = tuple(kind for kind in all_kinds() if kind not in others)
    policy = PolicySection(kinds=kinds, min_count=3)
    assert conflicts(policy, toy_study("pretraining.rounds=0")) == []
    assert len(conflicts(policy, toy_study())) == 1


def test_arrays_that_are_needed_but_held_back(toy_study):
    policy = PolicySection(tensors=("shared.*", "count*", "gradient", "hessian"), min_count=3)
    [words] = conflicts(policy, toy_study())
    assert "needs the arrays sums, which policy.tensors does not allow" in words


def test_weights_that_are_held_back(toy_study):
    others = ("sums", "counts", "gradient", "hessian")
    [words] = conflicts(PolicySection(tensors=others, min_count=3), toy_study())
    assert "needs the arrays shared.bank.classes, shared.bank.findings, shared.tower.*" in words
    policy = PolicySection(tensors=(*others, "shared.tower.*"), min_count=3)
    assert len(conflicts(policy, toy_study())) == 1
    assert conflicts(policy, toy_study("alignment.train_text_bank=false")) == []


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (("*",), "anything.at.all", True),
        ((), "sums", False),
        (("shared.*",), "shared.bank.classes", True),
        (("shared.*",), "sums", False),
        (("shared.bank.*",), "shared.tower.adapter", False),
        (("Sums",), "sums", False),
    ],
)
def test_arrays_by_pattern(patterns, name, allowed):
    assert may_leave(PolicySection(tensors=patterns), name) is allowed


# --- Secure aggregation --------------------------------------------------------------------------

SECURE = "privacy.secure_aggregation=true"


def test_a_secure_study_asks_for_the_exchanges_of_a_sum(toy_study):
    new = set(map(str, SECURE_SUM))
    assert set(kinds_asked(toy_study(SECURE))) - set(kinds_asked(toy_study())) == new
    policy = PolicySection(kinds=tuple(set(all_kinds()) - new), min_count=3)
    [words] = conflicts(policy, toy_study(SECURE))
    assert "needs query.keys, query.shares, query.survivors, query.unmask" in words


def test_a_site_may_demand_it(toy_study):
    policy = PolicySection(require_secure_aggregation=True, min_count=3)
    assert conflicts(policy, toy_study(SECURE)) == []
    [words] = conflicts(policy, toy_study())
    assert "secure aggregation only (policy.require_secure_aggregation)" in words
    assert "which the study does not offer: ask the coordinator" in words


def test_what_is_summed_beside_the_arrays_may_be_held_back(toy_study):
    patterns = ("sums", "counts", "gradient", "hessian", "shared.*")
    assert conflicts(PolicySection(tensors=patterns, min_count=3), toy_study()) == []
    [words] = conflicts(PolicySection(tensors=patterns, min_count=3), toy_study(SECURE))
    assert "needs the arrays examples, loss" in words
    assert arrays_of(LLOYD, toy_study(SECURE)) == ["sums", "counts", "examples", "loss"]
    assert arrays_of(ASSIGN, toy_study(SECURE)) == []  # in no sum


def test_a_private_study_needs_a_budget_that_the_site_has_decided_on(toy_study):
    study = toy_study(*PRIVATE, "privacy.mechanism=dp-sgd")
    [words] = conflicts(PolicySection(min_count=3), study)
    assert "policy.max_epsilon is not set" in words and "the site file" in words
    assert conflicts(PolicySection(min_count=3, max_epsilon=3.0), study) == []


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"max_epsilon": 2.9}, "spends ε = 3 (privacy.epsilon), this site's policy.max_epsilon"),
        ({"max_epsilon": 3.0, "delta": 9e-6}, "is above this site's policy.delta = 9e-06"),
    ],
)
def test_a_study_that_would_spend_more_than_the_site_allows(toy_study, policy, words):
    study = toy_study(*PRIVATE, "privacy.mechanism=dp-sgd")
    [said] = conflicts(PolicySection(min_count=3, **policy), study)
    assert words in said


def test_a_policy_that_keeps_the_end_from_being_told_keeps_no_site_from_a_study(toy_study):
    policy = PolicySection(kinds=tuple(set(all_kinds()) - {"evaluate.result"}), min_count=3)
    assert conflicts(policy, toy_study()) == []
