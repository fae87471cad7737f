"""Tip-Adapter-F: Tip-Adapter whose keys are trained on the shots (Zhang et al., ECCV 2022, §3.2).

Keys start as the shots' features; values and texts stay fixed. AdamW with a rate of 1e-3 that falls
along a cosine, as the authors train it, for the 100 epochs they give small sets; here one step of
all shots is an epoch, as theirs is with at most 256 of them.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hica_simulations.experiments.baselines.episode import TEMPERATURE, Doubles, Episode
from hica_simulations.experiments.baselines.tip_adapter import ALPHA, BETA

EPOCHS = 100
LEARNING_RATE = 1e-3
EPSILON = 1e-4
"""AdamW's, as theirs."""


def logits(features: Tensor, keys: Tensor, values: Tensor, texts: Tensor) -> Tensor:
    """Eq. 6 [m, C], with keys K [n, D] of any length.

    Features [m, D] and texts W [C, D] are unit rows, values V [n, C] are one-hot.
    """
    affinities = torch.exp(-BETA * (1 - features @ keys.T))
    return ALPHA * affinities @ values + features @ texts.T / TEMPERATURE


def fit_predict(episode: Episode, epochs: int = EPOCHS) -> Doubles:
    """Train the keys, predict the test images: [m, C]."""
    shots, values = torch.from_numpy(episode.unit_shots), torch.from_numpy(episode.targets)
    texts, labels = torch.from_numpy(episode.class_texts), torch.from_numpy(episode.labels)
    keys = shots.clone().requires_grad_()
    optimiser = torch.optim.AdamW([keys], lr=LEARNING_RATE, eps=EPSILON)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(epochs, 1))
    for _ in range(epochs):
        loss = functional.cross_entropy(logits(shots, keys, values, texts), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        falling.step()
    with torch.no_grad():
        found = logits(torch.from_numpy(episode.unit_queries), keys, values, texts)
    return np.asarray(found.softmax(dim=1).numpy())
