import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from hica.method.pseudo_labels import ClusterSums, assign, cluster_sums
from hica.privacy.noise import SeededNoise
from hica.privacy.statistics import SENSITIVITY, group_sums, noised, unit_weights
from hica.steps.arrays import COUNT_SCALE


def draw(seed, images, dim=5, patients=4):
    rng = np.random.default_rng(seed)
    units = [f"p{rng.integers(patients)}" for _ in range(images)]
    return rng.standard_normal((images, dim)) * 2, rng.integers(-1, 3, images), units


def test_the_images_of_a_unit_share_its_weight():
    assert unit_weights(["a", "b", "a", "a"]).tolist() == [1 / 3, 1.0, 1 / 3, 1 / 3]


def test_with_an_image_a_unit_the_sums_are_those_of_k_means():
    rows = np.random.default_rng(0).standard_normal((30, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centroids = rows[:4]
    exact = cluster_sums(rows, centroids)
    ours = group_sums(rows, assign(rows, centroids), 4, np.ones(30))
    assert np.abs(ours.sums - exact.sums).max() < 1e-14
    assert ours.counts.tolist() == exact.counts.tolist()


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(deadline=None)
def test_one_unit_changes_sums_and_counts_by_no_more_than_the_sensitivity(seed, images):
    rows, groups, units = draw(seed, images)
    whole = group_sums(rows, groups, 3, unit_weights(units))
    kept = np.array([unit != units[0] for unit in units])
    left = [unit for unit in units if unit != units[0]]
    rest = group_sums(rows[kept], groups[kept], 3, unit_weights(left))
    counts = COUNT_SCALE * (whole.counts - rest.counts)
    change = np.concatenate([(whole.sums - rest.sums).ravel(), counts])
    assert np.linalg.norm(change) <= SENSITIVITY + 1e-12


def test_a_unit_can_reach_the_sensitivity():
    sums, counts = group_sums(np.eye(3)[:1] * 7, np.array([1]), 2, np.ones(1))
    assert math.hypot(np.linalg.norm(sums), COUNT_SCALE * counts.sum()) == SENSITIVITY


def test_rows_without_a_group_count_nowhere():
    sums, counts = group_sums(np.ones((2, 3)), np.array([-1, -1]), 2, np.ones(2))
    assert not sums.any() and not counts.any()


def test_no_images_give_zeros():
    sums, counts = group_sums(np.zeros((0, 3)), np.zeros(0, np.int64), 2, unit_weights([]))
    assert sums.tolist() == [[0.0] * 3] * 2 and counts.tolist() == [0.0, 0.0]


def test_released_statistics_have_the_noise_that_is_claimed():
    deviation = 1.7
    exact = ClusterSums(np.full((3, 4), 2.0), np.arange(3.0))
    noise = SeededNoise(7)
    claimed = np.array([deviation] * 12 + [deviation / COUNT_SCALE] * 3)
    left = []
    for _ in range(4000):
        noisy = noised(exact, deviation, noise)
        left.append([*(noisy.sums - exact.sums).ravel(), *(noisy.counts - exact.counts)])
    every = np.array(left) / claimed  # 4000 releases of 15 numbers
    assert kstest(every.ravel(), "norm").pvalue > 1e-3
    assert every.std(axis=0) == pytest.approx(np.ones(15), rel=0.06)
    between = np.corrcoef(every.T) - np.eye(15)
    assert np.abs(between).max() < 0.07  # 4.4 standard errors


def test_no_two_releases_have_the_same_noise():
    noise, nothing = SeededNoise(7), ClusterSums(np.zeros((1, 5)), np.zeros(1))
    one, other = (noised(nothing, 1.0, noise).sums for _ in range(2))
    assert not np.isin(one, other).any()
