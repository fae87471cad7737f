import json

import numpy as np
import pytest

from hica.errors import MessageError
from hica.method.bootstrap import Bootstrap
from hica.method.gain import METRICS, Gain, gain_of
from hica.method.metrics import weighted_metric


def predictions(seed, n=24, skill=0.6):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    first = np.clip(0.5 + skill * (0.5 - labels) + rng.normal(0, 0.3, n), 0.01, 0.99)
    return np.stack([first, 1 - first], axis=1), labels


@pytest.fixture
def compared():
    (alone, labels), (shared, _), (personal, _) = (predictions(seed) for seed in (1, 2, 3))
    groups = [f"p{i // 2}" for i in range(len(labels))]
    return alone, shared, personal, labels, groups


def test_each_model_has_its_metrics_and_the_difference_is_paired(compared):
    alone, shared, personal, labels, groups = compared
    gain = gain_of(alone, shared, personal, labels, groups, seed=5)
    names, patients = np.unique(groups, return_inverse=True)
    draws = Bootstrap(patients, len(names), 1000, 5)
    for metric in METRICS:
        for name, each in (("alone", alone), ("shared", shared), ("personal", personal)):
            assert getattr(getattr(gain, name), metric) == draws.estimate(metric, each, labels)
        difference = getattr(gain.difference, metric)
        first, last = getattr(gain.personal, metric), getattr(gain.alone, metric)
        assert difference.value == pytest.approx(first.value - last.value, abs=1e-12)
        assert difference.low <= difference.value <= difference.high


def test_the_interval_is_over_the_same_draws_of_patients(compared):
    """Against a loop over draws, a patient at a time."""
    alone, _, personal, labels, groups = compared
    found = gain_of(alone, alone, personal, labels, groups, seed=5, resamples=200)
    rng, patients = np.random.default_rng(5), sorted(set(groups))
    order = {name: number for number, name in enumerate(np.unique(groups))}
    values = []
    for counts in rng.multinomial(len(patients), [1 / len(patients)] * len(patients), size=200):
        weight = np.array([[counts[order[name]] for name in groups]], dtype=float)
        one, other = (
            weighted_metric("accuracy", each, labels, weight)[0] for each in (personal, alone)
        )
        values.append(one - other)
    low, high = np.percentile(values, [2.5, 97.5])
    assert (found.difference.accuracy.low, found.difference.accuracy.high) == pytest.approx(
        (min(low, found.difference.accuracy.value), max(high, found.difference.accuracy.value))
    )


def test_a_model_beside_itself_differs_by_nothing(compared):
    alone, _, _, labels, groups = compared
    difference = gain_of(alone, alone, alone, labels, groups, seed=0).difference
    for metric in METRICS:
        assert set(vars(getattr(difference, metric)).values()) == {0.0}


def test_of_one_class_there_is_no_auroc_and_of_one_patient_no_certainty(compared):
    alone, shared, personal, labels, _ = compared
    first = labels == 0
    one = gain_of(
        alone[first], shared[first], personal[first], labels[first], ["p"] * first.sum(), seed=0
    )
    assert one.personal.auroc is None and one.difference.auroc is None
    assert (one.difference.accuracy.low, one.difference.accuracy.high) == (-1.0, 1.0)


def test_what_a_site_tells_is_read_again(compared):
    gain = gain_of(*compared, seed=0)
    assert Gain.from_dict(json.loads(json.dumps(gain.to_dict())), "north") == gain


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("alone", "accuracy", "value"), float("nan"), "gain.alone.accuracy.value: "),
        (("difference", "auroc", "low"), -1.5, "gain.difference.auroc.low: "),
        (("shared", "accuracy"), None, "gain.shared.accuracy: "),
        (("more",), 1, "gain.more: "),
        (("personal", "accuracy", "high"), 0.0, "gain.personal.accuracy: value lies outside"),
        (("difference", "accuracy", "low"), 1.0, "gain.difference.accuracy: value lies outside"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(compared, where, value, words):
    table = gain_of(*compared, seed=0).to_dict()
    inner = table
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(MessageError, match="metrics of site 'north': ") as error:
        Gain.from_dict(table, "north")
    assert words in str(error.value)
