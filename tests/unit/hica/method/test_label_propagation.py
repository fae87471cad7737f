import numpy as np
import pytest

from hica.method.label_propagation import (
    ALPHA,
    NEIGHBOURS,
    UNKNOWN,
    _neighbours,
    helps,
    propagated,
    spread,
)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def half_circles(noise):
    """Two interleaved half-circles: neighbours tell them apart, class means do not."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 200)
    upper = np.column_stack([np.cos(angle), np.sin(angle)])[:100]
    lower = np.column_stack([1 - np.cos(angle), 0.5 - np.sin(angle)])[100:]
    plane = np.concatenate([upper, lower]) + rng.normal(0, noise, (200, 2))
    rows = unit(np.column_stack([plane, np.full(200, 2.0)]))
    return rows, np.repeat([0, 1], 100)


@pytest.fixture
def moons():
    return half_circles(noise=0.05)


def test_labels_spread_as_the_linear_system_says():
    """F = (1 - α)(I - α·S)⁻¹·Y with S = D^-½ W D^-½, Zhou et al., eq. 5, on a full graph."""
    rng = np.random.default_rng(1)
    rows = unit(rng.normal(size=(6, 3)))
    labels = np.array([0, 1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN])
    found = spread(rows, labels)
    # Every row is a neighbour of every other: weights are 1, without a row's own.
    affinity = np.ones((6, 6)) - np.eye(6)
    degree = affinity.sum(axis=1)
    system = np.eye(6) - ALPHA * affinity / np.sqrt(np.outer(degree, degree))
    exact = np.linalg.solve(system, (1 - ALPHA) * np.eye(6)[:, :2])
    np.testing.assert_allclose(found, exact / exact.sum(axis=1, keepdims=True), atol=2e-3)


def test_it_names_what_class_means_cannot(moons):
    rows, truth = moons
    shots = np.r_[0:100:10, 100:200:10]
    pool = np.setdiff1d(np.arange(200), shots)
    assert helps(rows[shots], truth[shots], rows[pool], seed=0)
    labels = propagated(rows[shots], truth[shots], rows[pool], seed=0)
    named = labels != UNKNOWN
    assert named.mean() >= 0.5
    assert (labels[named] == truth[pool][named]).mean() > 0.95


def test_where_it_does_not_help_nothing_is_named():
    rng = np.random.default_rng(2)
    rows, labels = unit(rng.normal(size=(60, 16))), np.arange(20) % 2
    rows[:20] += 3 * np.eye(16)[labels]  # the shots lie about their means, the pool nowhere
    rows = unit(rows)
    assert not helps(rows[:20], labels, rows[20:], seed=0)
    assert (propagated(rows[:20], labels, rows[20:], seed=0) == UNKNOWN).all()


@pytest.mark.parametrize(
    ("labels", "pool"), [([0, 1], 5), ([0, 0, 0], 5), ([0, 0, 1, 1], 0), ([0, 0, 0, 1], 5)]
)
def test_too_few_shots_refuse(labels, pool):
    rng = np.random.default_rng(3)
    shots = unit(rng.normal(size=(len(labels), 4)))
    assert not helps(shots, np.array(labels), unit(rng.normal(size=(pool, 4))), seed=0)


def test_a_class_without_shots_keeps_its_column():
    rows = unit(np.random.default_rng(4).normal(size=(5, 4)))
    found = spread(rows, np.array([0, 2, UNKNOWN, UNKNOWN, UNKNOWN]))
    assert found.shape == (5, 3) and not found[:, 1].any()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def slow_neighbours(rows):
    """The graph with loops over exact integers: rows are multiples of 2⁻¹⁰."""
    whole = np.rint(rows * 1024).astype(int).tolist()
    graph = np.zeros((len(rows), len(rows)))
    for a, one in enumerate(whole):
        near = [sum(x * y for x, y in zip(one, other, strict=True)) for other in whole]
        last = sorted(near, reverse=True)[:NEIGHBOURS][-1]
        graph[a] = [other >= last for other in near]
    return graph


def test_of_neighbours_equally_near_all_or_none_count():
    rows = np.rint(1024 * unit(np.random.default_rng(5).normal(size=(40, 3)))) / 1024
    rows = np.concatenate([rows[:12], rows])  # as shots lie in the pool once more
    expected = slow_neighbours(rows)
    assert expected.sum(axis=1).min() == NEIGHBOURS < expected.sum(axis=1).max()
    for noise in 1e-8 * np.random.default_rng(6).normal(size=(10, *rows.shape)):
        assert np.array_equal(_neighbours(rows + noise, rows), expected)


def test_rounding_of_the_embeddings_does_not_turn_a_label():
    rows, truth = half_circles(noise=0.15)
    shots = np.r_[0:100:10, 100:200:10]
    labels = propagated(rows[shots], truth[shots], rows, seed=0)
    assert (labels != UNKNOWN).any()
    for noise in 3e-8 * np.random.default_rng(7).normal(size=(10, *rows.shape)):
        again = propagated(rows[shots], truth[shots], rows + noise, seed=0)
        assert np.array_equal(again, labels)


def test_an_image_between_two_classes_is_of_the_first(monkeypatch):
    """Its odds are even but for rounding; so are those of any number of images at the median."""
    monkeypatch.setattr("hica.method.label_propagation.helps", lambda *_: True)
    even = 0.5 + np.array([1e-16, -1e-16, 0, 1e-16])[:, None] * [1, -1]
    monkeypatch.setattr("hica.method.label_propagation.spread", lambda *_: even)
    found = propagated(np.eye(2)[:0], np.array([], int), np.eye(2)[[0, 0, 1, 1]], seed=0)
    assert found.tolist() == [0, 0, 0, 0]
