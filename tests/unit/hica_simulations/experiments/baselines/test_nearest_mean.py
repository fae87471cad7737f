import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from hica_simulations.experiments.baselines.nearest_mean import fit_predict


def test_names_the_class_of_the_nearest_mean_as_loops_do(episode):
    for query, row in zip(episode.unit_queries, fit_predict(episode), strict=True):
        distances = []
        for label in range(3):
            members = [
                s for s, y in zip(episode.unit_shots, episode.labels, strict=True) if y == label
            ]
            mean = sum(members) / len(members)
            distances.append(((query - mean / np.linalg.norm(mean)) ** 2).sum())
        assert list(np.argsort(distances)) == list(np.argsort(-row))


def test_with_one_shot_it_is_the_nearest_neighbour_of_scikit_learn(one_site):
    rng = np.random.default_rng(0)
    turn = np.array([[np.cos(a), np.sin(a)] for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)])
    test = rng.standard_normal((50, 2))
    labels = np.arange(3)
    made = one_site(turn, labels, test, 3)
    reference = KNeighborsClassifier(1).fit(made.unit_shots, labels).predict(made.unit_queries)
    np.testing.assert_array_equal(fit_predict(made).argmax(axis=1), reference)


def test_a_class_without_shots_has_probability_zero(one_site):
    made = one_site(np.eye(4), np.array([0, 0, 2, 2]), np.eye(4), 3)
    assert np.all(fit_predict(made)[:, 1] == 0)
