"""What the tests of simulations and of experiments share."""

import numpy as np
import pytest

from hica_simulations.experiments.baselines.episode import Episode


@pytest.fixture(scope="session")
def one_site():
    """Makes an episode with one view of each image, at one site, of [n, D], [n] and [m, D]."""

    def one_site(train, labels, test, classes, seed=0):
        here, there = np.zeros(len(train), np.int64), np.zeros(len(test), np.int64)
        return Episode(train[:, None], labels, here, test[:, None], there, classes, seed)

    return one_site
