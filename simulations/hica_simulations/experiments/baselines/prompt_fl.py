"""PromptFL: CoOp's context is trained at the sites and averaged.

Guo et al., IEEE TMC 2023, algorithm 1. Only the context leaves a site. Adam starts anew every
round, and rounds times epochs are the steps of `coop`.
"""

import torch
from torch import Tensor

from hica_simulations.experiments.baselines import coop
from hica_simulations.experiments.baselines.averaging import federated_average
from hica_simulations.experiments.baselines.episode import Doubles, Episode

ROUNDS = 20
EPOCHS = 10


def fit(episode: Episode, rounds: int = ROUNDS, epochs: int = EPOCHS) -> Tensor:
    """The averaged context, [M, width]."""
    shots, labels = torch.from_numpy(episode.unit_shots), torch.from_numpy(episode.labels)
    parts = [torch.from_numpy(part) for part in episode.by_site]

    def train(context: Tensor, site: int) -> Tensor:
        part = parts[site]
        return coop.train(context, episode.writer, shots[part], labels[part], epochs)

    first = coop.start(episode.writer, episode.seed)
    return federated_average(first, train, [len(part) for part in parts], rounds)


def fit_predict(episode: Episode) -> Doubles:
    """Probabilities [m, C]."""
    return coop.predict(fit(episode), episode)
