import math

import numpy as np
import pytest

from hica.method.conformal import patients_needed
from hica_client.prediction.held_out import (
    HeldOut,
    calibrated,
    cross_checked,
    distances,
    unlike,
)


def held_out(patients, images=1, skill=2.0, seed=0):
    """Images of patients whose logits are right as often as `skill` says."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 3, patients), images)
    logits = rng.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    groups = [f"p{number // images}" for number in range(len(labels))]
    return HeldOut(logits, labels, groups, rng.random(len(labels)))


def test_coverage_is_that_of_patients_left_out():
    found = held_out(2000)
    checked = cross_checked(found, 0.9)
    assert checked.patients == 2000
    assert checked.covered == pytest.approx(0.9, abs=0.03)
    sets = calibrated(found, 0.9).sets(found.logits)
    assert 0 < checked.single < 1 and (sets.sum(axis=1) == 1).mean() == pytest.approx(
        checked.single, abs=0.02
    )


def test_a_better_model_says_one_class_more_often():
    single = [cross_checked(held_out(300, skill=skill), 0.9).single for skill in (1.0, 4.0)]
    assert single[0] < single[1]


def test_few_patients_promise_nothing():
    fewest = patients_needed(0.9)
    assert calibrated(held_out(fewest), 0.9).promises
    few = calibrated(held_out(fewest - 1), 0.9)
    assert not few.promises and few.limit == math.inf
    assert few.sets(np.zeros((1, 3))).all()
    assert cross_checked(held_out(fewest), 0.9) is None  # a fold would have too few


def test_many_images_of_a_patient_promise_no_more_than_one():
    assert not calibrated(held_out(5, images=20), 0.9).promises


def test_the_temperature_changes_no_answer():
    found = held_out(60)
    calibration = calibrated(found, 0.9)
    p = calibration.probabilities(found.logits)
    np.testing.assert_array_equal(p.argmax(axis=1), found.logits.argmax(axis=1))
    assert p.sum(axis=1) == pytest.approx(1)


def test_distance_is_to_the_nearest_few():
    rows = np.eye(8)[:7]
    assert distances(rows[:1], rows)[0] == pytest.approx(1 - 1 / 5)
    assert distances(rows[:1], rows[1:3])[0] == pytest.approx(1)


def test_an_image_further_than_nearly_all_patients_is_unlike():
    many = held_out(200)
    values = np.sort(many.distances)
    assert unlike(many, np.array([values[-1] + 1, values[-2], values[-20], 0.0])).tolist() == [
        True,
        True,
        False,
        False,
    ]
    few = held_out(12)
    assert unlike(few, np.array([few.distances.max() + 1e-6, few.distances.max()])).tolist() == [
        True,
        False,
    ]
