import numpy as np
import pytest
from hica_server.noisy import (
    as_bank,
    count_noise,
    nearest_mean,
    noisy_centre,
    noisy_lloyd_step,
    with_texts,
)

from hica.method.pseudo_labels import ClusterSums, lloyd_step
from hica.privacy.budget import statistics_multiplier
from hica.privacy.statistics import COUNT_SCALE, SENSITIVITY, random_subspace

PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
]


def test_the_noise_of_a_sum_grows_with_the_sites_unless_it_is_shared_out(toy_study):
    local = toy_study(*PRIVATE)
    one = statistics_multiplier(local) * SENSITIVITY / COUNT_SCALE
    assert count_noise(local, 4) == pytest.approx(2 * one, rel=1e-12)
    shared = toy_study(*PRIVATE, "privacy.secure_aggregation=true", "privacy.noise=distributed")
    assert count_noise(shared, 4) == pytest.approx(one * (4 / 3) ** 0.5, rel=1e-12)


def test_a_centre_is_the_mean_within_the_sphere_or_nothing():
    sums = np.array([[30.0, 40.0], [3.0, 0.0]])
    centre = noisy_centre(sums, np.array([100.0, 1.0]), deviation=5.0)
    assert centre.tolist() == [[0.3, 0.4], [0.0, 0.0]]
    assert np.linalg.norm(noisy_centre(sums, np.array([10.0, 10.0]), 5.0)[0]) == pytest.approx(1)
    assert not noisy_centre(sums, np.array([-3.0, 0.0]), deviation=0.5)[0].any()


def test_without_noise_a_step_is_lloyd_s():
    rng = np.random.default_rng(0)
    centroids, sums = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    part = ClusterSums(sums, np.array([9.0, 0.0, 7.0]))
    ours = noisy_lloyd_step(centroids, part, np.eye(4), deviation=0.0)
    assert np.abs(ours - lloyd_step(centroids, [part])).max() < 1e-15


def test_a_cluster_that_is_lost_in_noise_stays_where_it_is():
    subspace = random_subspace(4, 2, seed=0)
    centroids = np.eye(2) @ subspace.T
    part = ClusterSums(np.array([[6.0, 0.0], [6.0, 0.0]]), np.array([12.0, 3.0]))
    moved = noisy_lloyd_step(centroids, part, subspace, deviation=4.0)
    assert moved[0] == pytest.approx(subspace @ [0.5, 0.0])
    assert (moved[1] == centroids[1]).all()


def classes(rng, count=3, dim=8):
    rows = rng.normal(size=(count, dim))
    return rows * rng.integers(4, 9, count)[:, None], rng.integers(4, 9, count).astype(float)


def test_without_noise_the_nearest_mean_wins():
    rng = np.random.default_rng(0)
    sums, counts = classes(rng)
    images = rng.normal(size=(50, 8))
    rows, offsets = nearest_mean(sums, counts, deviation=0.0)
    distances = ((images[:, None] - sums / counts[:, None]) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) == (images @ rows.T - offsets).argmax(axis=1)).all()


def test_the_norms_of_noisy_means_are_right_on_average():
    rng = np.random.default_rng(0)
    sums, counts = classes(rng, dim=400)
    exact = nearest_mean(sums, counts, 0.0).offsets
    noisy = [
        nearest_mean(sums + 30.0 * rng.normal(size=sums.shape), counts, 30.0).offsets
        for _ in range(2000)
    ]
    error = np.std(noisy, axis=0) / np.sqrt(2000)
    assert (np.abs(np.mean(noisy, axis=0) - exact) < 4 * error).all()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_bank_of_unit_rows_ranks_as_the_classifier_does(count):
    rng = np.random.default_rng(count)
    classifier = nearest_mean(*classes(rng, count), deviation=0.0)
    bank, bias = as_bank(classifier, temperature=0.1)
    assert np.linalg.norm(bank, axis=1) == pytest.approx(np.ones(count), abs=1e-12)
    images = rng.normal(size=(40, 8))
    scores, logits = images @ classifier.rows.T - classifier.offsets, images @ bank.T / 0.1 + bias
    differences, others = scores - scores[:, :1], logits - logits[:, :1]
    scale = (others[:, 1:] / differences[:, 1:]).mean()
    assert scale > 0
    assert others == pytest.approx(scale * differences, rel=1e-9, abs=1e-9)


def test_texts_and_means_weigh_alike_and_the_mean_image_scores_nothing():
    rng = np.random.default_rng(1)
    means = nearest_mean(rng.normal(size=(3, 8)), np.ones(3), 0.0)
    texts = np.eye(3, 8)
    rows, offsets = with_texts(means, texts)
    centre = means.rows.mean(axis=0)
    assert np.linalg.norm(rows - texts, axis=1).mean() == pytest.approx(1.0, abs=1e-12)
    without = with_texts(means, np.zeros((3, 8)))
    assert (rows - without.rows) @ centre - (offsets - without.offsets) == pytest.approx(
        np.zeros(3), abs=1e-12
    )
