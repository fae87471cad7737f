"""Metrics against scikit-learn, the bootstrap against a loop, and every refusal."""

import copy
import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    roc_auc_score,
)

from hica.errors import ConfigurationError, DataError, MessageError
from hica.method import metrics
from hica.method.metrics import SiteMetrics, combine, paired_interval, site_metrics


def predictions(n, class_count, seed, decimals=2):
    """Probabilities better than chance, rounded so that scores tie, labels and patients."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % class_count
    logits = rng.normal(size=(n, class_count)) + 1.2 * np.eye(class_count)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = probabilities.round(decimals)
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(axis=1)
    return probabilities.clip(0, 1), labels, [f"p{i // 3}" for i in range(n)]


def sklearn_auroc(probabilities, labels):
    if probabilities.shape[1] == 2:
        return roc_auc_score(labels, probabilities[:, 1])
    return roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")


@pytest.mark.parametrize("n", [5, 60, 301])
@pytest.mark.parametrize("class_count", [2, 3, 5])
def test_values_equal_scikit_learn(n, class_count):
    probabilities, labels, _ = predictions(n, class_count, seed=n)
    predicted = probabilities.argmax(axis=1)
    assert metrics.accuracy(probabilities, labels) == pytest.approx(
        accuracy_score(labels, predicted), abs=1e-12
    )
    assert metrics.balanced_accuracy(probabilities, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted), abs=1e-12
    )
    assert metrics.macro_auroc(probabilities, labels) == pytest.approx(
        sklearn_auroc(probabilities, labels), abs=1e-12
    )


def test_auroc_over_the_classes_present():
    probabilities, labels, _ = predictions(90, 3, seed=1)
    two = labels != 1
    expected = np.mean([roc_auc_score(labels[two] == c, probabilities[two, c]) for c in (0, 2)])
    assert metrics.macro_auroc(probabilities[two], labels[two]) == pytest.approx(expected)
    assert np.isnan(metrics.macro_auroc(probabilities[labels == 1], labels[labels == 1]))


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_equals_a_loop(bins):
    probabilities, labels, _ = predictions(200, 3, seed=2)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    expected = 0.0
    for b in range(bins):
        inside = [i for i in range(200) if b / bins < confidence[i] <= (b + 1) / bins + 1e-15]
        if inside:
            right = np.mean([predicted[i] == labels[i] for i in inside])
            sure = np.mean([confidence[i] for i in inside])
            expected += len(inside) / 200 * abs(right - sure)
    assert metrics.expected_calibration_error(probabilities, labels, bins) == pytest.approx(
        expected
    )


def test_calibration_error_of_a_known_case():
    probabilities = [[0.9, 0.1]] * 10  # 90 % sure and right half of the time
    assert metrics.expected_calibration_error(probabilities, [0, 1] * 5) == pytest.approx(0.4)


@pytest.mark.parametrize("class_count", [2, 3])
def test_bootstrap_equals_a_loop_over_the_same_draws(class_count):
    probabilities, labels, groups = predictions(48, class_count, seed=3)
    got = site_metrics(
        probabilities, labels, groups, class_count, resamples=40, seed=9, min_count=1
    )
    names = sorted(set(groups))
    draws = np.random.default_rng(9).multinomial(len(names), [1 / len(names)] * len(names), 40)
    values = {"accuracy": [], "balanced_accuracy": [], "auroc": []}
    for draw in draws:
        index = [
            i
            for name, times in zip(names, draw, strict=True)
            for _ in range(times)
            for i in range(48)
            if groups[i] == name
        ]
        p, y = probabilities[index], labels[index]
        values["accuracy"].append(accuracy_score(y, p.argmax(axis=1)))
        values["balanced_accuracy"].append(balanced_accuracy_score(y, p.argmax(axis=1)))
        values["auroc"].append(sklearn_auroc(p, y))
    for field, drawn in values.items():
        estimate = getattr(got, field)
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
        assert estimate.standard_error == pytest.approx(np.std(drawn, ddof=1), abs=1e-12)


def test_bootstrap_in_blocks_equals_bootstrap_at_once(monkeypatch):
    probabilities, labels, groups = predictions(60, 3, seed=4)
    arguments = (probabilities, labels, groups, 3)
    whole = site_metrics(*arguments, resamples=50, seed=0, min_count=1)
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 7 * 60)
    assert site_metrics(*arguments, resamples=50, seed=0, min_count=1) == whole


def test_patients_make_wider_intervals_than_their_images_would():
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(30) % 2, 10)  # 30 patients with 10 images, all alike
    right = np.repeat(rng.random(30) < 0.7, 10)
    predicted = np.where(right, labels, 1 - labels)
    probabilities = np.eye(2)[predicted] * 0.6 + 0.2
    patients = [str(i // 10) for i in range(300)]
    images = [str(i) for i in range(300)]
    by_patient = site_metrics(probabilities, labels, patients, 2, seed=0, min_count=5)
    by_image = site_metrics(probabilities, labels, images, 2, seed=0, min_count=5)
    ratio = by_patient.accuracy.standard_error / by_image.accuracy.standard_error
    assert ratio == pytest.approx(np.sqrt(10), rel=0.1)


def test_interval_of_the_federation_covers_the_truth():
    rng = np.random.default_rng(6)
    truth, sizes, trials, covered = 0.75, (40, 25, 60), 100, 0
    for trial in range(trials):
        sites = []
        for patients in sizes:
            labels = np.repeat(rng.integers(0, 2, patients), 2)
            right = rng.random(patients * 2) < truth
            probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
            groups = [str(i // 2) for i in range(patients * 2)]
            sites.append(
                site_metrics(
                    probabilities, labels, groups, 2, resamples=100, seed=trial, min_count=1
                )
            )
        overall = combine(sites).accuracy
        covered += overall.low <= truth <= overall.high
    assert 0.90 <= covered / trials <= 0.985


def test_combined_accuracy_equals_the_pooled_one():
    parts = [predictions(n, 3, seed=n) for n in (30, 90, 45)]
    sites = [site_metrics(*part, 3, resamples=50, seed=0, min_count=1) for part in parts]
    pooled = [np.concatenate([part[i] for part in parts]) for i in (0, 1)]
    overall = combine(sites)
    assert overall.n == 165
    assert overall.accuracy.value == pytest.approx(
        accuracy_score(pooled[1], pooled[0].argmax(axis=1))
    )
    errors = [site.n / 165 * site.accuracy.standard_error for site in sites]
    reach = 1.96 * np.sqrt(np.sum(np.square(errors)))
    assert overall.accuracy.high - overall.accuracy.value == pytest.approx(reach)
    weighted = sum(site.n / 165 * site.auroc.value for site in sites)
    assert overall.auroc.value == pytest.approx(weighted)
    assert overall.to_dict()["auroc"]["value"] == overall.auroc.value


def test_site_of_one_class_has_no_say_in_auroc():
    probabilities, labels, groups = predictions(60, 2, seed=7)
    both = site_metrics(probabilities, labels, groups, 2, resamples=50, seed=0, min_count=1)
    ones = labels == 1
    one_class = site_metrics(
        probabilities[ones],
        labels[ones],
        [str(i) for i in range(30)],
        2,
        resamples=50,
        seed=0,
        min_count=1,
    )
    assert one_class.auroc is None
    assert combine([both, one_class]).auroc.value == pytest.approx(both.auroc.value)
    assert combine([one_class]).auroc is None
    assert combine([one_class]).to_dict()["auroc"] is None


def test_combining_no_sites_is_refused():
    with pytest.raises(MessageError, match="no site reported metrics"):
        combine([])


def test_one_patient_says_nothing():
    probabilities, labels, _ = predictions(10, 2, seed=8)
    got = site_metrics(probabilities, labels, ["p"] * 10, 2, seed=0, min_count=1)
    assert (got.accuracy.low, got.accuracy.high, got.accuracy.standard_error) == (0, 1, 0.5)


def counted(patients_per_class, min_count=5):
    """Metrics of a site with one image a patient and this many patients of each class."""
    class_count = len(patients_per_class)
    labels = np.repeat(np.arange(class_count), patients_per_class)
    probabilities = np.full((len(labels), class_count), 1 / class_count)
    groups = [str(i) for i in range(len(labels))]
    return site_metrics(
        probabilities, labels, groups, class_count, resamples=5, seed=0, min_count=min_count
    )


def test_counts_and_confusion_are_shown_where_large_enough():
    probabilities, labels, groups = predictions(90, 3, seed=9)
    got = site_metrics(probabilities, labels, groups, 3, resamples=5, seed=0, min_count=5)
    assert got.counts == (30, 30, 30)
    expected = confusion_matrix(labels, probabilities.argmax(axis=1))
    assert np.array_equal(got.confusion, expected)


def test_small_counts_are_hidden_and_cannot_be_subtracted():
    assert counted([20, 0, 30]).counts == (20, 0, 30)
    two_small = counted([20, 3, 2])
    assert two_small.counts == (20, None, None) and two_small.confusion is None
    one_small = counted([20, 3, 30])  # n = 53 and 20 would give the 3 away
    assert one_small.counts == (None, None, 30)


def test_few_patients_are_hidden_however_many_their_images():
    labels = np.repeat([0, 1], [40, 20])
    groups = [str(i) for i in range(40)] + [f"q{i % 2}" for i in range(20)]
    got = site_metrics(np.full((60, 2), 0.5), labels, groups, 2, resamples=5, seed=0, min_count=5)
    assert got.counts == (None, None)


def test_calibration_bins_hold_enough_images():
    probabilities, labels, groups = predictions(90, 3, seed=10)
    bins = site_metrics(
        probabilities, labels, groups, 3, resamples=5, seed=0, min_count=8
    ).calibration
    assert len(bins) > 2
    assert min(each.count for each in bins) >= 8
    assert sum(each.count for each in bins) == 90
    confidence = sum(each.count * each.confidence for each in bins) / 90
    assert confidence == pytest.approx(probabilities.max(axis=1).mean())
    right = sum(each.count * each.accuracy for each in bins) / 90
    assert right == pytest.approx(metrics.accuracy(probabilities, labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["a"] * 3 + ["b"] * 9}, "2 patient"),
        ({"labels": np.full(12, -1)}, r"labels lie in -1\.\.-1"),
        ({"labels": np.full(12, 3)}, "expected 0..2"),
        ({"labels": np.zeros(11, int)}, "do not describe the same images"),
        ({"groups": ["a"]}, "do not describe the same images"),
        ({"probabilities": np.full((12, 2), 0.5)}, "do not describe the same images"),
        ({"probabilities": np.full((12, 3), np.nan)}, "not finite"),
        ({"probabilities": np.full((12, 3), 7.0)}, "apply the softmax"),
    ],
)
def test_predictions_that_cannot_be_measured_are_refused(change, message):
    table = {
        "probabilities": np.full((12, 3), 1 / 3),
        "labels": np.arange(12) % 3,
        "groups": [str(i) for i in range(12)],
    }
    with pytest.raises(DataError, match=message):
        site_metrics(**(table | change), class_count=3, resamples=5, seed=0, min_count=5)


def message():
    """A valid message of a site with two classes, as read from JSON."""
    probabilities, labels, groups = predictions(60, 2, seed=11)
    got = site_metrics(probabilities, labels, groups, 2, resamples=20, seed=0, min_count=5)
    return json.loads(json.dumps(got.to_dict())), got


def test_message_survives_json():
    table, got = message()
    assert SiteMetrics.from_dict(table, 2, "a") == got
    hidden = counted([20, 3, 2])
    assert SiteMetrics.from_dict(json.loads(json.dumps(hidden.to_dict())), 3, "a") == hidden


def replaced(table, path, value):
    """A copy of nested dicts and lists with the item at `path` set (or dropped: value is ...)."""
    table = copy.deepcopy(table)
    target = table
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["ece"], float("nan"), "ece"),
        (["ece"], 1.5, "ece"),
        (["ece"], "0.5", "ece"),
        (["ece"], ..., "ece"),
        (["extra"], 1, "extra"),
        (["n"], 0, "n"),
        (["n"], 60.5, "n"),
        (["n"], 61, "counts: they sum to 60"),
        (["counts"], [60], "counts: 1 classes where the study has 2"),
        (["counts", 0], -1, "counts.0"),
        (["counts", 0], None, "confusion"),
        (["accuracy", "value"], float("inf"), "accuracy.value"),
        (["accuracy", "value"], None, "accuracy.value"),
        (["accuracy", "low"], -0.1, "accuracy.low"),
        (["accuracy", "low"], 1.0, "accuracy: value lies outside"),
        (["accuracy"], None, "accuracy"),
        (["auroc", "high"], 0.0, "auroc: value lies outside"),
        (["auroc", "standard_error"], ..., "auroc.standard_error"),
        (["confusion", 0], [1], "confusion: not a 2 x 2"),
        (["confusion", 0], [29, 2], "confusion: its rows do not sum"),
        (["confusion", 1, 1], -4, "confusion.1.1"),
        (["calibration"], [], "calibration: its bins do not sum"),
        (["calibration", 0, "accuracy"], 2, "calibration.0.accuracy"),
        (["calibration", 0, "count"], -2, "calibration.0.count"),
    ],
)
def test_damaged_messages_are_refused_by_field(path, value, field):
    table, _ = message()
    with pytest.raises(MessageError) as caught:
        SiteMetrics.from_dict(replaced(table, path, value), 2, "St. Mary")
    assert f"metrics of site 'St. Mary': {field}" in str(caught.value)


def test_a_message_that_is_no_table_is_refused():
    with pytest.raises(MessageError, match="table"):
        SiteMetrics.from_dict([1, 2], 2, "a")


def test_paired_interval_of_a_known_case():
    # mean 2, sd 1, n = 3: t(0.975, 2) = 4.302653, reach = 4.302653 / sqrt(3)
    interval = paired_interval([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2.0, 2.0 - 2.484138, 2.0 + 2.484138), abs=1e-6)


def test_paired_interval_needs_two_seeds():
    with pytest.raises(ConfigurationError, match="at least 2, got 1"):
        paired_interval([0.1])


def test_no_warnings_on_extreme_inputs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = counted([6, 0])
        site_metrics(
            np.eye(2)[[0, 1] * 6], [0, 1] * 6, list("abcdefghijkl"), 2, seed=0, min_count=1
        )
    assert got.auroc is None


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", metrics.accuracy),
        ("balanced_accuracy", metrics.balanced_accuracy),
        ("auroc", metrics.macro_auroc),
    ],
)
def test_a_weighted_metric_is_that_of_images_written_out_so_often(name, reference):
    probabilities, labels, _ = predictions(40, 3, seed=2)
    often = np.stack([np.ones(40, int), np.random.default_rng(3).integers(0, 4, 40)])
    found = metrics.weighted_metric(name, probabilities, labels, often.astype(float))
    written_out = [np.repeat(np.arange(40), row) for row in often]
    expected = [reference(probabilities[at], labels[at]) for at in written_out]
    assert found == pytest.approx(expected, abs=1e-12)
    only = metrics.weighted_metric("auroc", probabilities, labels, [(labels == 0).astype(float)])
    assert np.isnan(only).all()  # of one class there is nothing to rank
