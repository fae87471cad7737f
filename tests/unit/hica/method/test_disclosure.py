from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from hica.method.disclosure import counts_told, merged_bins, patients_of, small_classes
from hica.method.evaluation import site_metrics
from hica.method.metrics import accuracy
from hica.method.reliability import reliability_bins

from .measured import counted, predictions


def test_patients_are_counted_once_in_each_of_their_classes():
    labels, groups = ["a", "a", "b", "a", "b"], ["x", "x", "x", "y", "z"]
    assert patients_of(labels, groups, ["a", "b", "c"]) == [2, 2, 0]


def test_a_class_is_small_that_has_patients_but_few():
    assert small_classes([0, 1, 4, 5, 60], 5) == {1, 2}
    assert small_classes([1, 2], 1) == set()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 6))
def test_shots_are_counted_for_all_classes_or_for_none(patients, min_count):
    told = counts_told([3 * each for each in patients], patients, min_count)
    if any(0 < each < min_count for each in patients):
        assert told == [None] * len(patients)
    else:
        assert told == [3 * each for each in patients]


def test_counts_and_confusion_are_shown_where_large_enough():
    probabilities, labels, groups = predictions(90, 3, seed=9)
    got = site_metrics(probabilities, labels, groups, 3, resamples=5, seed=0, min_count=5)
    assert got.counts == (30, 30, 30)
    expected = confusion_matrix(labels, probabilities.argmax(axis=1))
    assert np.array_equal(got.confusion, expected)


def test_small_classes_stand_in_no_total():
    assert counted([20, 0, 30]).counts == (20, 0, 30)
    two_small = counted([20, 3, 2])
    assert (two_small.n, two_small.counts, two_small.confusion) == (20, (20, None, None), None)
    one_small = counted([20, 3, 30])
    assert (one_small.n, one_small.counts, one_small.confusion) == (50, (20, None, 30), None)


def test_few_patients_are_hidden_however_many_their_images():
    labels = np.repeat([0, 1], [40, 20])
    groups = [str(i) for i in range(40)] + [f"q{i % 2}" for i in range(20)]
    got = site_metrics(np.full((60, 2), 0.5), labels, groups, 2, resamples=5, seed=0, min_count=5)
    assert (got.n, got.counts) == (40, (40, None))


def test_calibration_bins_hold_enough_patients():
    probabilities, labels, groups = predictions(90, 3, seed=10)
    found = site_metrics(probabilities, labels, groups, 3, resamples=5, seed=0, min_count=8)
    bins = found.calibration
    assert len(bins) > 2
    assert sum(each.count for each in bins) == 90
    confidence = sum(each.count * each.confidence for each in bins) / 90
    assert confidence == pytest.approx(probabilities.max(axis=1).mean())
    right = sum(each.count * each.accuracy for each in bins) / 90
    assert right == pytest.approx(accuracy(probabilities, labels))
    edges = np.cumsum([0, *(each.count for each in bins)])
    by_confidence = np.array(groups)[np.argsort(probabilities.max(axis=1), kind="stable")]
    assert all(len(set(by_confidence[a:b])) >= 8 for a, b in pairwise(edges))


def test_a_bin_of_many_images_of_one_patient_is_joined_with_the_next():
    bins = reliability_bins([[0.9, 0.1]] * 8 + [[0.6, 0.4]] * 4, [0] * 12)
    assert [each.count for each in bins] == [4, 8]
    (joined,) = merged_bins(bins, ["abcd", "eeeeeeee"], 4)
    assert joined.count == 12 and joined.confidence == pytest.approx(0.8)
    assert merged_bins(bins, ["abcd", "efghefgh"], 4) == bins


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 6))
def test_of_patients_with_one_image_bins_are_joined_by_number_of_images(sizes, min_count):
    confidence = np.repeat((np.arange(len(sizes)) + 3.5) / 15, sizes)
    probabilities = np.stack([confidence, *(2 * [(1 - confidence) / 2])], axis=1)
    probabilities = probabilities[confidence > 0.4]
    if len(probabilities) < min_count:
        return
    bins = reliability_bins(probabilities, np.zeros(len(probabilities), int))
    names = iter(map(str, range(100)))
    patients = [[next(names) for _ in range(each.count)] for each in bins]
    expected, open_ = [], 0
    for each in bins:
        open_ += each.count
        if open_ >= min_count:
            expected.append(open_)
            open_ = 0
    if open_:
        expected[-1] += open_
    assert [each.count for each in merged_bins(bins, patients, min_count)] == expected
