"""Federated linear probe: FedAvg, and FedProx with a pull to the weights of the round.

    h(w) = mean_i CE(y_i, softmax(w·x_i)) + ridge/2·‖w‖² + μ/2·‖w - w_t‖²

McMahan et al., AISTATS 2017, algorithm 1 (μ = 0); Li et al., MLSys 2020, eq. 2 (μ > 0). Local
epochs are steps of plain gradient descent on all shots of a site, so that one site alone is central
training, and so are many sites with one epoch a round.

Features are standardised, with moments that sites can add up, and divided by √D. Then ‖x‖² is 1 on
average, the loss curves by at most (1 + 1)/2 with the intercept, and the step of 1 cannot diverge.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy.special import softmax

from hica_simulations.experiments.baselines.averaging import federated_average
from hica_simulations.experiments.baselines.episode import Doubles, Episode

ROUNDS = 50
EPOCHS = 10
STEP = 1.0
RIDGE = 1e-3
PULL = 0.1
"""μ of FedProx."""
FLOOR = 1e-5
"""Added to a variance, as BatchNorm does."""


def gradient(
    weights: Doubles, rows: Doubles, targets: Doubles, anchor: Doubles, pull: float
) -> Doubles:
    """Gradient of h [C, D + 1] at the shots of one site.

    Of `weights` w and `anchor` w_t [C, D + 1], `rows` x [n, D + 1] whose last column is 1, one-hot
    `targets` [n, C], and μ, the `pull`.
    """
    errors = softmax(rows @ weights.T, axis=1) - targets
    slope = errors.T @ rows / len(rows) + RIDGE * weights + pull * (weights - anchor)
    return np.asarray(slope)


def fit(
    rows: Sequence[Doubles],
    targets: Sequence[Doubles],
    pull: float,
    rounds: int = ROUNDS,
    epochs: int = EPOCHS,
) -> Doubles:
    """The weights [C, D + 1] after training over the sites, from zero on.

    Every site has rows [n_s, D + 1] and targets [n_s, C], and takes `epochs` steps in each round;
    μ is `pull`.
    """

    def train(weights: Doubles, site: int) -> Doubles:
        local = weights
        for _ in range(epochs):
            local = local - STEP * gradient(local, rows[site], targets[site], weights, pull)
        return local

    start = np.zeros((targets[0].shape[1], rows[0].shape[1]))
    return federated_average(start, train, [len(part) for part in rows], rounds)


def scaled(rows: Doubles, mean: Doubles, variance: Doubles) -> Doubles:
    """Rows [n, D] standardised by moments [D], over √D, and a column of 1: [n, D + 1]."""
    standard = (rows - mean) / np.sqrt(variance + FLOOR) / np.sqrt(rows.shape[1])
    return np.column_stack([standard, np.ones(len(rows))])


def fit_predict(episode: Episode, pull: float) -> Doubles:
    """Probabilities [m, C]; FedAvg where μ, the `pull`, is 0."""
    mean, variance = episode.shots.mean(axis=0), episode.shots.var(axis=0)
    shots = scaled(episode.shots, mean, variance)
    parts = episode.by_site
    weights = fit([shots[p] for p in parts], [episode.targets[p] for p in parts], pull)
    return np.asarray(softmax(scaled(episode.queries, mean, variance) @ weights.T, axis=1))


fed_avg = partial(fit_predict, pull=0.0)
fed_prox = partial(fit_predict, pull=PULL)
