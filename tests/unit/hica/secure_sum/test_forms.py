import numpy as np
import pytest

from hica.errors import ConfigurationError, MessageError
from hica.secure_sum.forms import (
    SUMMED,
    integers_of,
    masked_spec,
    mean_update,
    most_examples,
    ranges_of,
    terms_of,
    values_of,
)
from hica.wire.messages import Kind, Reply

NAME = "shared.tower.weight"


@pytest.fixture
def study(toy_study):
    return lambda *overrides: toy_study("privacy.secure_aggregation=true", *overrides)


def update(change, examples=8, loss=0.5):
    weights = np.ones((2, 3), np.float32)
    details = {"loss": loss}
    reply = Reply(Kind.ALIGN, "north", 1, examples, details, {NAME: weights + np.float32(change)})
    return reply, {NAME: weights}


def summed(replies, study, sites=3):
    """What the coordinator makes of these replies, as if there were no masks."""
    parts = [integers_of(reply, study, sent, sites) for reply, sent in replies]
    kind = replies[0][0].kind
    totals = {
        name: np.sum([part[name] for part in parts], axis=0, dtype=parts[0][name].dtype)
        for name in parts[0]
    }
    return values_of(totals, kind, study, sites)


def test_metrics_and_capabilities_are_not_summed():
    assert {Kind.EVALUATE, Kind.CAPABILITIES}.isdisjoint(SUMMED)
    assert {kind for kind in Kind if kind.value.startswith("train.")} == SUMMED


@pytest.mark.parametrize(
    ("weighting", "mean"), [("examples", (0.1 * 2 + 0.4 * 8) / 10), ("sites", 0.25)]
)
def test_the_mean_of_updates_is_that_of_the_weighting(study, weighting, mean):
    study = study(f"federation.weighting={weighting}")
    replies = [update(0.1, examples=2, loss=1.0), update(0.4, examples=8, loss=3.0)]
    values = summed(replies, study)
    means = mean_update(values, Kind.ALIGN, study, replies[0][1], 2)
    np.testing.assert_allclose(means[NAME], 1 + mean, atol=1e-6)
    assert values["examples"] == 10
    assert values["loss"] == pytest.approx(2 * 1.0 + 8 * 3.0)


def test_an_update_that_is_too_far_is_brought_back_by_its_own_site(study):
    study = study("federation.max_update_norm=0.5", "federation.weighting=sites")
    [values] = [summed([update(7.0)], study)]
    assert np.linalg.norm(values[NAME]) == pytest.approx(0.5, rel=1e-5)


def test_an_update_in_half_precision_is_summed_as_it_is(study):
    study = study("federation.weighting=sites", "federation.precision=half")
    weights = np.full((2, 3), 0.25, np.float16)
    reply = Reply(Kind.ALIGN, "a", 1, 8, {"loss": 0.1}, {NAME: weights * np.float16(1.5)})
    values = summed([(reply, {NAME: weights})], study)
    np.testing.assert_allclose(values[NAME], 0.125, atol=1e-6)


def test_more_examples_than_a_site_may_have_are_refused(study):
    assert most_examples(Kind.ALIGN, study()) == 8
    assert most_examples(Kind.PRETRAIN, study("pretraining.max_images=50")) == 50
    reply, sent = update(0.1, examples=9)
    with pytest.raises(MessageError, match="9 examples, the study allows 8"):
        integers_of(reply, study(), sent, 3)


def test_training_that_diverged_is_refused(study):
    for reply, sent in (update(np.nan), update(0.1, loss=float("nan"))):
        with pytest.raises(MessageError, match="NaN or infinite"):
            integers_of(reply, study(), sent, 3)


def test_an_update_without_examples_is_none(study):
    values = {NAME: np.zeros((2, 3)), "examples": np.zeros(1)}
    with pytest.raises(MessageError, match="no example stands behind"):
        mean_update(values, Kind.ALIGN, study(), {NAME: np.ones((2, 3))}, 3)


def test_statistics_are_summed_to_float64s_precision(study):
    draws = np.random.default_rng(0)
    parts = [draws.normal(scale=50.0, size=(2, 5)) for _ in range(3)]
    replies = [(Reply(Kind.MOMENTS, "a", 0, 8, arrays={"sums": part}), {}) for part in parts]
    values = summed(replies, study())
    np.testing.assert_allclose(values["sums"], np.sum(parts, axis=0), rtol=0, atol=1e-9)


def test_what_is_masked_has_the_shapes_of_the_answer_and_says_nothing_beside_it(study):
    spec = {NAME: ((2, 3), "float16")}
    assert masked_spec(Kind.ALIGN, study(), spec) == {
        NAME: ((2, 3), "uint32"),
        "examples": ((1,), "uint64"),
        "loss": ((1,), "uint64"),
    }
    assert masked_spec(Kind.CALIBRATE, study(), {"gradient": ((2,), "float64")})["gradient"] == (
        (2,),
        "uint64",
    )


def test_ranges_follow_from_the_study_alone(study):
    one, more = study(), study("regions.count=8")
    limits = [ranges_of(Kind.MOMENTS, s, ["sums"])["sums"].limit for s in (one, more)]
    assert limits[1] == 4 * limits[0]
    assert ranges_of(Kind.ALIGN, one, [NAME])[NAME] == ranges_of(Kind.ALIGN, more, [NAME])[NAME]


def test_the_quorum_of_the_study_counts_if_it_is_more_than_three(study):
    assert terms_of(study("federation.quorum=1")).fewest == 3
    assert terms_of(study("federation.quorum=5", "privacy.threshold=0.9")).threshold(10) == 9
    assert terms_of(study("federation.quorum=5")).fewest == 5


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
