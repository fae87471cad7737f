"""CoOp: the words before the class name are learnt, as vectors at the text tower's input.

Zhou et al., IJCV 2022, eq. 2 and 3: one context for all classes, trained by cross-entropy through
the frozen text tower. It starts as the authors' unspecific one, from N(0, 0.02²). They train it by
SGD over CLIP's embeddings; the scale of a small tower's is another, which Adam does not depend on.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hica_simulations.experiments.baselines.episode import TEMPERATURE, Doubles, Episode
from hica_simulations.experiments.baselines.prompts import Prompts

STEPS = 200
LEARNING_RATE = 2e-3
SPREAD = 0.02


def start(prompts: Prompts, seed: int) -> Tensor:
    """The context [M, width] before training."""
    generator = torch.Generator().manual_seed(seed)
    return SPREAD * torch.randn(prompts.shape, generator=generator, dtype=torch.float64)


def loss(context: Tensor, prompts: Prompts, shots: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of shots [n, D], unit rows, against the prompted classes."""
    logits = shots @ prompts.classes(context).to(shots.dtype).T / TEMPERATURE
    return functional.cross_entropy(logits, labels)


def train(context: Tensor, prompts: Prompts, shots: Tensor, labels: Tensor, steps: int) -> Tensor:
    """The context after some steps of Adam on all shots; the one given stays what it is."""
    local = context.clone().requires_grad_()
    optimiser = torch.optim.Adam([local], lr=LEARNING_RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(local, prompts, shots, labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return local.detach()


def predict(context: Tensor, episode: Episode) -> Doubles:
    """Probabilities [m, C] of the test images against the prompted classes."""
    with torch.no_grad():
        texts = episode.writer.classes(context).double()
    logits = torch.from_numpy(episode.unit_queries) @ texts.T / TEMPERATURE
    return np.asarray(logits.softmax(dim=1).numpy())


def fit_predict(episode: Episode) -> Doubles:
    """Learn the context on the pooled shots: probabilities [m, C]."""
    shots, labels = torch.from_numpy(episode.unit_shots), torch.from_numpy(episode.labels)
    first = start(episode.writer, episode.seed)
    return predict(train(first, episode.writer, shots, labels, STEPS), episode)
