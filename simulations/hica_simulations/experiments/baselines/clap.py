"""CLAP: a linear probe that starts at the texts and is held there as far as they are right.

Silva-Rodríguez et al., CVPR 2024, "A Closer Look at the Few-Shot Adaptation of Large
Vision-Language Models". The constraint is one of an augmented Lagrangian whose multipliers are set
once, from the texts' own success on the shots, so that no validation set is needed:

    min_w  mean_i CE(y_i, softmax(z_i·w_c/‖w_c‖ / τ)) + mean_c λ_c ‖w_c - t_c‖²
    λ_c = mean over the shots i of class c of the zero-shot probability p_ic

As in the authors' code the prototypes are normalised in the logits and the penalty is a mean over
classes. They stop SGD after 300 epochs; here L-BFGS goes on until it has converged, so that
neither a learning rate nor a number of epochs has to be chosen.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from hica_simulations.experiments.baselines.episode import (
    TEMPERATURE,
    Doubles,
    Episode,
    probabilities,
)


def multipliers(episode: Episode) -> Doubles:
    """λ [C]: mean zero-shot probability of the right class over its shots; 1 without shots.

    A class without shots has nothing to leave its text for.
    """
    zero_shot = probabilities(episode.unit_shots @ episode.class_texts.T)
    right, counts = (zero_shot * episode.targets).sum(axis=0), episode.targets.sum(axis=0)
    return np.asarray(np.where(counts > 0, right / np.maximum(counts, 1), 1.0))


def objective(
    weights: Doubles, shots: Doubles, targets: Doubles, texts: Doubles, held: Doubles
) -> tuple[float, Doubles]:
    """What is minimised, and its gradient [C, D] in w, the `weights` [C, D].

    Shots z [n, D] and texts t [C, D] are unit rows, targets [n, C] are one-hot, `held` is λ [C].
    """
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    unit = weights / lengths
    logged = log_softmax(shots @ unit.T / TEMPERATURE, axis=1)
    away = weights - texts
    value = -(targets * logged).sum() / len(shots) + (held * (away**2).sum(axis=1)).mean()
    direct = (np.exp(logged) - targets).T @ shots / (TEMPERATURE * len(shots))  # in the unit rows
    through = (direct - (direct * unit).sum(axis=1, keepdims=True) * unit) / lengths
    return float(value), through + 2 * held[:, None] * away / len(texts)


def fit_predict(episode: Episode) -> Doubles:
    """Train the prototypes from the texts on; probabilities [m, C]."""
    texts = episode.class_texts
    fixed = (episode.unit_shots, episode.targets, texts, multipliers(episode))

    def flat(weights: Doubles) -> tuple[float, Doubles]:
        value, gradient = objective(weights.reshape(texts.shape), *fixed)
        return value, gradient.ravel()

    options = {"maxiter": 1000, "gtol": 1e-7}
    best = minimize(flat, texts.ravel(), jac=True, method="L-BFGS-B", options=options).x
    weights = best.reshape(texts.shape)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return probabilities(episode.unit_queries @ weights.T)
