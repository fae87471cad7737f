import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from hica.method.pseudo_labels import (
    ClusterSums,
    assign,
    cluster_sums,
    drawn_start,
    lloyd_step,
    merge_starts,
    noisy_lloyd_step,
    site_start,
    within_sphere,
)


def sites_of_blobs(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Four uneven sites, each holding some of six well separated groups."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(6, 16)) * 3
    features, truth = [], []
    for size, groups in ((40, [0, 1, 2]), (90, [1, 2, 3, 4]), (25, [4, 5]), (60, [0, 3, 5])):
        labels = generator.choice(groups, size=size)
        features.append(centres[labels] + generator.normal(size=(size, 16)))
        truth.append(labels)
    return features, truth


@pytest.mark.parametrize("iterations", [1, 2, 7, 30])
def test_federated_lloyd_equals_scikit_learn_on_pooled_data(iterations: int) -> None:
    features, _ = sites_of_blobs()
    pooled = np.concatenate(features)
    start = pooled[np.random.default_rng(1).choice(len(pooled), 6, replace=False)]
    centroids = start
    for _ in range(iterations):
        centroids = lloyd_step(centroids, [cluster_sums(part, centroids) for part in features])
    reference = KMeans(6, init=start, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(
        pooled
    )
    np.testing.assert_allclose(centroids, reference.cluster_centers_, rtol=0, atol=1e-10)


def test_labels_equal_scikit_learn_after_convergence() -> None:
    features, _ = sites_of_blobs()
    pooled = np.concatenate(features)
    reference = KMeans(6, n_init=1, random_state=0, tol=0, algorithm="lloyd").fit(pooled)
    ours = np.concatenate([assign(part, reference.cluster_centers_) for part in features])
    np.testing.assert_array_equal(ours, reference.labels_)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_a_step_does_not_depend_on_how_rows_are_split_over_sites(
    seed: int, sites: int, clusters: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(30, 5))
    centroids = generator.normal(size=(clusters, 5))
    together = lloyd_step(centroids, [cluster_sums(rows, centroids)])
    parts = np.array_split(rows[generator.permutation(30)], sites)
    apart = lloyd_step(centroids, [cluster_sums(part, centroids) for part in parts])
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-12)


def test_sums_equal_a_slow_loop() -> None:
    rows, centroids = np.random.default_rng(0).normal(size=(50, 4)), np.eye(4)[:3]
    sums, counts = np.zeros((3, 4)), np.zeros(3)
    for row in rows:
        nearest = min(range(3), key=lambda c: float(((row - centroids[c]) ** 2).sum()))
        sums[nearest] += row
        counts[nearest] += 1
    ours = cluster_sums(rows, centroids)
    np.testing.assert_allclose(ours.sums, sums, atol=1e-12)
    np.testing.assert_array_equal(ours.counts, counts)


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_centroids_the_first_is_nearest(seed: int) -> None:
    """They are equal but for rounding, which here noise stands for."""
    generator = np.random.default_rng(seed)
    centroids = generator.normal(size=(4, 16))
    rows = generator.normal(size=(50, 16))
    nearest = [min(range(4), key=lambda c: float(((r - centroids[c]) ** 2).sum())) for r in rows]
    rows = np.concatenate([rows, (centroids[:1] + centroids[1:2]) / 2])  # as near to 0 as to 1
    twice = np.concatenate([centroids, centroids[::-1]])
    noisy = twice * (1 + 1e-15 * generator.normal(size=twice.shape))
    assert assign(rows, noisy).tolist() == [*nearest, 0]


def test_an_empty_cluster_keeps_its_centroid() -> None:
    centroids = np.array([[0.0, 0.0], [100.0, 100.0]])
    moved = lloyd_step(centroids, [cluster_sums(np.array([[1.0, 0.0], [3.0, 0.0]]), centroids)])
    np.testing.assert_array_equal(moved, [[2.0, 0.0], [100.0, 100.0]])


def test_one_global_numbering_recovers_groups_no_site_has_all_of() -> None:
    features, truth = sites_of_blobs()
    starts = [site_start(part, 6, seed) for seed, part in enumerate(features)]
    centroids = merge_starts(starts, 6, seed=0)
    for _ in range(5):
        centroids = lloyd_step(centroids, [cluster_sums(part, centroids) for part in features])
    labels = np.concatenate([assign(part, centroids) for part in features])
    assert adjusted_rand_score(np.concatenate(truth), labels) > 0.95


def test_site_local_numbers_would_not() -> None:
    features, truth = sites_of_blobs()
    local = [
        KMeans(6, n_init=1, random_state=seed).fit(x).labels_ for seed, x in enumerate(features)
    ]
    assert adjusted_rand_score(np.concatenate(truth), np.concatenate(local)) < 0.8


def test_a_site_with_fewer_images_than_clusters_pads_with_empty_ones() -> None:
    start = site_start(np.random.default_rng(0).normal(size=(3, 4)), 8, seed=0)
    assert start.sums.shape == (8, 4)
    assert start.counts.sum() == 3
    assert (start.counts[3:] == 0).all()


def test_of_a_site_with_few_images_the_start_does_not_depend_on_their_order() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4))
    rows = np.concatenate([rows, rows[2:6]])
    starts = [
        site_start(rows[np.random.default_rng(seed).permutation(13)], 12, seed)
        for seed in range(10)
    ]
    for start in starts:
        np.testing.assert_array_equal(start.counts, starts[0].counts)
        np.testing.assert_array_equal(start.sums, starts[0].sums)
    assert sorted(starts[0].counts) == 3 * [0] + 5 * [1] + 4 * [2]


def test_centroids_that_differ_by_rounding_are_one() -> None:
    start = ClusterSums(np.array([[0.1, 0.2], [0.3, 0.6]]), np.array([1.0, 3.0]))
    assert (start.sums[0] != start.sums[1] / 3).any()
    assert merge_starts([start], 2, seed=0).shape == (1, 2)


def test_fewer_distinct_points_than_clusters_lower_the_number_of_clusters() -> None:
    start = ClusterSums(np.ones((4, 2)), np.array([1.0, 1.0, 0.0, 0.0]))
    assert merge_starts([start, start], 4, seed=0).shape == (1, 2)


# --- With noise ----------------------------------------------------------------------------------


def test_a_drawn_start_is_unit_rows_that_depend_on_its_seed_alone() -> None:
    start = drawn_start(5, 3, seed=1)
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1.0, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(start, drawn_start(5, 3, seed=1))
    assert not np.array_equal(start, drawn_start(5, 3, seed=2))


def test_only_rows_beyond_the_sphere_are_brought_back_to_it() -> None:
    rows = within_sphere(np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], rtol=1e-15)


def test_without_noise_a_step_is_lloyd_s() -> None:
    rng = np.random.default_rng(0)
    centroids, sums = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    part = ClusterSums(sums, np.array([9.0, 0.0, 7.0]))
    ours = noisy_lloyd_step(centroids, part, np.eye(4), deviation=0.0)
    assert np.abs(ours - lloyd_step(centroids, [part])).max() < 1e-15


def test_a_cluster_that_is_lost_in_noise_stays_where_it_is() -> None:
    subspace = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 2)))[0]
    centroids = np.eye(2) @ subspace.T
    part = ClusterSums(np.array([[6.0, 0.0], [6.0, 0.0]]), np.array([12.0, 3.0]))
    moved = noisy_lloyd_step(centroids, part, subspace, deviation=4.0)
    assert moved[0] == pytest.approx(subspace @ [0.5, 0.0])
    assert (moved[1] == centroids[1]).all()
