import numpy as np
import pytest

from hica_simulations.experiments.baselines.averaging import federated_average


def test_sites_count_by_their_shots_in_every_round():
    seen = []

    def train(weights, site):
        seen.append((site, weights.copy()))
        return weights + (site + 1) * np.array([1.0, 10.0])

    found = federated_average(np.zeros(2), train, [3, 1], rounds=2)
    np.testing.assert_allclose(found, 2 * (0.75 * 1 + 0.25 * 2) * np.array([1, 10]))
    assert [site for site, _ in seen] == [0, 1, 0, 1]
    assert seen[2][1] == pytest.approx([1.25, 12.5])


def test_one_site_is_training_on_and_on():
    found = federated_average(np.ones(1), lambda weights, _: weights / 3 + 1, [7], rounds=5)
    alone = 1.0
    for _ in range(5):
        alone = alone / 3 + 1
    assert found[0] == alone
