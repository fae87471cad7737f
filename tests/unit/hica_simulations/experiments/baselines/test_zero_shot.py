import math

import numpy as np

from hica_simulations.experiments.baselines.episode import TEMPERATURE
from hica_simulations.experiments.baselines.zero_shot import fit_predict


def test_equals_a_softmax_computed_in_loops(episode):
    found = fit_predict(episode)
    for query, row in zip(episode.unit_queries, found, strict=True):
        powers = [
            math.exp(sum(a * b for a, b in zip(query, text, strict=True)) / TEMPERATURE)
            for text in episode.text
        ]
        np.testing.assert_allclose(row, [power / sum(powers) for power in powers], atol=1e-10)
