import numpy as np
import pytest

from hica.errors import ConfigurationError, MessageError
from hica.secure_sum.forms import (
    LOSS,
    in_sum,
    integers_of,
    masked_spec,
    mean_update,
    question_of,
    range_of,
    threshold_of,
    values_of,
)
from hica.secure_sum.quantise import Range
from hica.steps.alignment import ALIGNMENT
from hica.steps.arrays import LARGEST_CHANGE, LARGEST_FEATURE
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import PERSONAL
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.steps.result import RESULT
from hica.steps.step import Answer
from hica.wire.messages import Request

NAME = "shared.tower.weight"


@pytest.fixture
def study(toy_study):
    return lambda *overrides: toy_study("privacy.secure_aggregation=true", *overrides)


def update(change, examples=8, loss=0.5):
    weights = np.ones((2, 3), np.float32)
    answer = Answer({NAME: weights + np.float32(change)}, examples, {"loss": loss})
    return answer, {NAME: weights}


def summed(step, answers, study, sites=3):
    """What the coordinator makes of these answers, as if there were no masks."""
    parts = [integers_of(step, answer, study, sent, sites) for answer, sent in answers]
    totals = {
        name: np.sum([part[name] for part in parts], axis=0, dtype=parts[0][name].dtype)
        for name in parts[0]
    }
    return values_of(totals, step, study, sites)


ALONE = {EVALUATION, PERSONAL, RESULT}
"""Steps that a site answers by itself, also in a study of secure sums."""


def test_all_but_metrics_and_what_sites_keep_is_summed(study):
    asked = {turn.step for turn in plan(study()) if turn.step.kind}
    assert {step for step in asked if not step.in_sum} == {*ALONE, ASSIGN}
    assert asked - {*ALONE, ASSIGN} == {
        CENTRE,
        LLOYD,
        PRETRAINING,
        PROTOTYPES,
        ALIGNMENT,
        CALIBRATION,
    }


@pytest.mark.parametrize(
    ("weighting", "mean"), [("examples", (0.1 * 2 + 0.4 * 8) / 10), ("sites", 0.25)]
)
def test_the_mean_of_updates_is_that_of_the_weighting(study, weighting, mean):
    study = study(f"federation.weighting={weighting}")
    answers = [update(0.1, examples=2, loss=1.0), update(0.4, examples=8, loss=3.0)]
    values = summed(ALIGNMENT, answers, study)
    means = mean_update(values, ALIGNMENT, study, answers[0][1], float(values["examples"][0]), 2)
    np.testing.assert_allclose(means[NAME], 1 + mean, atol=1e-6)
    assert values["examples"] == 10
    assert values["loss"] == pytest.approx(2 * 1.0 + 8 * 3.0)


def test_an_update_that_is_too_far_is_brought_back_by_its_own_site(study):
    study = study("federation.max_update_norm=0.5", "federation.weighting=sites")
    values = summed(ALIGNMENT, [update(7.0)], study)
    assert np.linalg.norm(values[NAME]) == pytest.approx(0.5, rel=1e-5)


def test_an_update_in_half_precision_is_summed_as_it_is(study):
    study = study("federation.weighting=sites", "federation.precision=half")
    weights = np.full((2, 3), 0.25, np.float16)
    answer = Answer({NAME: weights * np.float16(1.5)}, 8, {"loss": 0.1})
    values = summed(ALIGNMENT, [(answer, {NAME: weights})], study)
    np.testing.assert_allclose(values[NAME], 0.125, atol=1e-6)


def test_more_examples_than_a_site_may_have_are_refused(study):
    answer, sent = update(0.1, examples=9)
    with pytest.raises(MessageError, match="9 examples, the study allows 8"):
        integers_of(ALIGNMENT, answer, study(), sent, 3)
    fifty = study("pretraining.max_images=50")
    assert integers_of(PRETRAINING, update(0.1, examples=50)[0], fifty, sent, 3)
    with pytest.raises(MessageError, match="51 examples, the study allows 50"):
        integers_of(PRETRAINING, update(0.1, examples=51)[0], fifty, sent, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_training_that_diverged_adds_nothing(study, bad):
    """A refusal would name the site: that its data make weights of the coordinator's diverge."""
    answer, sent = update(bad)
    found, still = (
        integers_of(ALIGNMENT, each, study(), sent, 3) for each in (answer, update(0.0)[0])
    )
    assert found.keys() == still.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], still[name])
    lost = integers_of(ALIGNMENT, update(0.1, loss=float("nan"))[0], study(), sent, 3)
    assert not lost[LOSS].any()


def test_an_update_without_examples_is_none(study):
    values = {NAME: np.zeros((2, 3))}
    with pytest.raises(MessageError, match="no example stands behind"):
        mean_update(values, ALIGNMENT, study(), {NAME: np.ones((2, 3))}, 0.0, 3)


def test_statistics_are_summed_to_float64s_precision(study):
    draws = np.random.default_rng(0)
    parts = [draws.normal(scale=50.0, size=(2, 5)) for _ in range(3)]
    values = summed(CENTRE, [(Answer({"sums": part}, 8), {}) for part in parts], study())
    np.testing.assert_allclose(values["sums"], np.sum(parts, axis=0), rtol=0, atol=1e-9)


def test_what_is_masked_has_the_shapes_of_the_answer_and_says_nothing_beside_it(study):
    spec = {NAME: ((2, 3), "float16")}
    assert masked_spec(ALIGNMENT, study(), spec) == {
        NAME: ((2, 3), "uint32"),
        "examples": ((1,), "uint64"),
        "loss": ((1,), "uint64"),
    }
    assert masked_spec(CALIBRATION, study(), {"gradient": ((2,), "float64")})["gradient"] == (
        (2,),
        "uint64",
    )


def test_ranges_follow_from_the_study_alone(study):
    one, more = study(), study("regions.count=8")
    limits = [in_sum(CENTRE, s, ["sums"])["sums"].limit for s in (one, more)]
    assert limits[1] == 4 * limits[0]
    assert in_sum(ALIGNMENT, one, [NAME])[NAME] == in_sum(ALIGNMENT, more, [NAME])[NAME]


def test_every_array_is_counted_as_its_step_declares_it(study):
    """Squares more coarsely than sums; of an update every weight alike."""
    asked = study("alignment.scaling=global")
    ranges = in_sum(CENTRE, asked, ["sums", "counts", "squares"])
    assert ranges["squares"].limit == LARGEST_FEATURE * ranges["sums"].limit
    declared = {array.name: range_of(array) for array in CENTRE.answers(asked)}
    assert {name: ranges[name] for name in declared} == declared
    weights = in_sum(ALIGNMENT, asked, [NAME, "shared.bank.classes"])
    assert weights[NAME] == weights["shared.bank.classes"] == Range(LARGEST_CHANGE, 32)
    half = in_sum(ALIGNMENT, study("federation.precision=half"), [NAME])
    assert half[NAME] == weights[NAME]


def test_images_are_counted_beside_every_answer(study):
    """As many as the study allows, however the answer's own arrays are counted."""
    for step in (CENTRE, LLOYD, PROTOTYPES, ALIGNMENT, CALIBRATION):
        ranges = in_sum(step, study(), [])
        assert ranges.keys() == {"examples", "loss"}
        assert ranges["examples"].dtype == "uint64"
        assert ranges["examples"].limit >= step.most_images(study())


# --- Questions -----------------------------------------------------------------------------------


def test_the_session_of_a_sum_is_no_part_of_the_question(study):
    asked, arrays = study(), {"bias": np.zeros(2)}
    one, other = (
        Request(ALIGNMENT.kind, asked, 1, {"rate": 0.5, "sum": {"session": number}}, arrays)
        for number in ("ab", "cd")
    )
    assert question_of(one) == question_of(other)
    plain = Request(ALIGNMENT.kind, asked, 1, {"rate": 0.5}, arrays)
    assert question_of(plain) == question_of(one)


def test_all_that_an_answer_depends_on_is_part_of_the_question(study):
    arrays = {"bias": np.zeros(2)}
    requests = [
        Request(ALIGNMENT.kind, study(), 1, {"rate": 0.5}, arrays),
        Request(PRETRAINING.kind, study(), 1, {"rate": 0.5}, arrays),
        Request(ALIGNMENT.kind, study("study.seed=1"), 1, {"rate": 0.5}, arrays),
        Request(ALIGNMENT.kind, study(), 2, {"rate": 0.5}, arrays),
        Request(ALIGNMENT.kind, study(), 1, {"rate": 0.6}, arrays),
        Request(ALIGNMENT.kind, study(), 1, {"rate": 0.5}, {"bias": np.ones(2)}),
        Request(ALIGNMENT.kind, study(), 1, {"rate": 0.5}, {"bias": np.zeros((1, 2))}),
        Request(ALIGNMENT.kind, study(), 1, {"rate": 0.5}, {"bias": np.zeros(2, np.int64)}),
        Request(ALIGNMENT.kind, study(), 1, {"rate": 0.5}, {"bais": np.zeros(2)}),
    ]
    assert len({question_of(request) for request in requests}) == len(requests)


# --- Threshold ----------------------------------------------------------------------------------


def test_the_quorum_of_the_study_counts_if_it_is_more_than_three(study):
    assert threshold_of(study("federation.quorum=1")).fewest == 3
    assert threshold_of(study("federation.quorum=5", "privacy.threshold=0.9")).threshold(10) == 9
    assert threshold_of(study("federation.quorum=5")).fewest == 5


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "krum"])
def test_rules_that_compare_updates_are_refused_with_the_study(study, rule):
    with pytest.raises(ConfigurationError, match=f"{rule}.*compares single updates.*set aggreg"):
        study(f"federation.aggregation={rule}")


def test_lora_is_refused_with_the_study(study):
    with pytest.raises(ConfigurationError, match=r"lora.*factors of each site.*set train"):
        study("model.train=lora")


@pytest.mark.parametrize("threshold", [0.5, 1.1, 0.0])
def test_the_threshold_is_a_majority(study, threshold):
    with pytest.raises(ConfigurationError, match=r"privacy\.threshold"):
        study(f"privacy.threshold={threshold}")
