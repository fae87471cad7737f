import math

import numpy as np

from hica_simulations.experiments.baselines.episode import TEMPERATURE
from hica_simulations.experiments.baselines.tip_adapter import ALPHA, BETA, fit_predict


def in_loops(episode, keys):
    """Eq. 4 to 6 of the paper, a number at a time."""
    rows = []
    for query in episode.unit_queries:
        logits = [sum(query * text) / TEMPERATURE for text in episode.text]
        for key, label in zip(keys, episode.labels, strict=True):
            logits[label] += ALPHA * math.exp(-BETA * (1 - sum(query * key)))
        powers = [math.exp(logit) for logit in logits]
        rows.append([power / sum(powers) for power in powers])
    return rows


def test_equals_the_paper_in_loops(episode):
    np.testing.assert_allclose(
        fit_predict(episode), in_loops(episode, episode.unit_shots), atol=1e-10
    )
