import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from hica.method.evaluation import site_metrics
from hica.method.metrics import accuracy

from .measured import counted, predictions


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
    assert right == pytest.approx(accuracy(probabilities, labels))
