"""FedCLIP: only an attention adapter on the image features is trained and averaged.

Lu et al., 2023, "FedCLIP: Fast Generalization and Personalization for CLIP in Federated Learning",
§3.3. The adapter weighs the features, the class texts stay the classifier:

    a = softmax(W₂·tanh(W₁·z + b₁) + b₂)        over the D features
    logits = unit(a ⊙ z)·T / τ

Their contrast of a batch's images with its texts becomes the softmax over the classes, as in all
methods here. Adam, as theirs, restarted every round; a step of all shots of a site is its epoch.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hica_simulations.experiments.baselines.averaging import federated_average
from hica_simulations.experiments.baselines.episode import TEMPERATURE, Doubles, Episode

ROUNDS = 20
EPOCHS = 1
LEARNING_RATE = 1e-3


def start(dim: int, seed: int) -> Tensor:
    """W₁, b₁, W₂, b₂ in one row each way: [2, D, D + 1], drawn as torch draws linear layers."""
    reach = dim**-0.5
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(2, dim, dim + 1, generator=generator, dtype=torch.float64)
    weights: Tensor = (2 * drawn - 1) * reach
    return weights


def logits(features: Tensor, adapter: Tensor, texts: Tensor) -> Tensor:
    """[n, D] unit rows, [2, D, D + 1], [C, D] unit rows to [n, C]."""
    first, second = adapter
    hidden = torch.tanh(features @ first[:, :-1].T + first[:, -1])
    attention = torch.softmax(hidden @ second[:, :-1].T + second[:, -1], dim=1)
    return functional.normalize(attention * features, dim=1) @ texts.T / TEMPERATURE


def fit(episode: Episode, rounds: int = ROUNDS, epochs: int = EPOCHS) -> Tensor:
    """The averaged adapter, [2, D, D + 1]; in single precision: it is larger than any cache."""
    shots, labels = torch.from_numpy(episode.unit_shots).float(), torch.from_numpy(episode.labels)
    texts = torch.from_numpy(episode.class_texts).float()
    parts = [torch.from_numpy(part) for part in episode.by_site]

    def train(weights: Tensor, site: int) -> Tensor:
        local = weights.clone().requires_grad_()
        optimiser = torch.optim.Adam([local], lr=LEARNING_RATE)
        for _ in range(epochs):
            found = logits(shots[parts[site]], local, texts)
            optimiser.zero_grad()
            functional.cross_entropy(found, labels[parts[site]]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return local.detach()

    first = start(shots.shape[1], episode.seed).float()
    return federated_average(first, train, [len(part) for part in parts], rounds)


def fit_predict(episode: Episode) -> Doubles:
    """Probabilities [m, C] of the texts on adapted features."""
    found = logits(
        torch.from_numpy(episode.unit_queries),
        fit(episode).double(),
        torch.from_numpy(episode.class_texts),
    )
    return np.asarray(found.softmax(dim=1).numpy())
