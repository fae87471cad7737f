import math

import numpy as np
import pytest

from hica_simulations.experiments.baselines.episode import TEMPERATURE, Episode, probabilities


def test_image_and_mirror_are_averaged_and_further_views_are_not():
    train = np.arange(24.0).reshape(2, 3, 4)
    none = np.zeros(2, int)
    made = Episode(train, none, none, train[:, :1], none, 2)
    np.testing.assert_array_equal(made.shots, (train[:, 0] + train[:, 1]) / 2)
    np.testing.assert_array_equal(made.queries, train[:, 0])


def test_unit_features_are_centred_by_the_shots_alone(episode):
    mean = episode.shots.mean(axis=0)
    for raw, unit in (
        (episode.shots, episode.unit_shots),
        (episode.queries, episode.unit_queries),
    ):
        for row, found in zip(raw, unit, strict=True):
            away = [float(a - b) for a, b in zip(row, mean, strict=True)]
            length = math.sqrt(sum(a * a for a in away))
            np.testing.assert_allclose(found, [a / length for a in away], atol=1e-12)


def test_rows_of_each_site_are_found(episode):
    assert [len(rows) for rows in episode.by_site] == [12, 12, 12]
    assert all(np.all(episode.sites[rows] == n) for n, rows in enumerate(episode.by_site))


def test_an_episode_without_texts_says_so(one_site):
    plain = one_site(np.eye(2), np.arange(2), np.eye(2), 2)
    with pytest.raises(ValueError, match="needs class texts"):
        _ = plain.class_texts


def test_probabilities_are_a_softmax_at_the_fixed_temperature():
    found = probabilities(np.array([[0.1, 0.3]]))
    up = math.exp(0.3 / TEMPERATURE)
    assert found[0, 1] == pytest.approx(up / (up + math.exp(0.1 / TEMPERATURE)))
