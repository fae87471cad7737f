"""A fine-tuned CNN: the last blocks of the study's tower and a fresh linear head, no texts.

What most would do first with a few labelled images and ImageNet's weights: cross-entropy, AdamW
(Loshchilov & Hutter, ICLR 2019) with a rate that falls along a cosine. Early blocks carry over from
one task to another (Yosinski et al., NeurIPS 2014) and stay frozen: their output is computed once,
and a step costs what is trained. BatchNorm stays on its stored statistics, which a few shots cannot
estimate.
"""

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn import functional

from hica.seeds import derived_seed
from hica.towers.adaptation import AdaptedTower
from hica_simulations.experiments.baselines.episode import Doubles
from hica_simulations.experiments.baselines.tuning import TunedEpisode, batches, features

MODEL = {"model": {"train": "last-2"}}
"""What it sets in the study; `full` would train every weight, which wants a GPU."""
EPOCHS = 8
BATCH_SIZE = 16
LEARNING_RATE = 1e-4
"""Learning rate of the tower."""
HEAD_LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2


def loss(tower: AdaptedTower, head: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of hidden states [B, ...] with labels [B]."""
    logits = head(features(tower, hidden))
    return functional.cross_entropy(logits, labels.to(logits.device))


def fit(episode: TunedEpisode, epochs: int) -> tuple[AdaptedTower, nn.Linear]:
    """A trained copy of the tower, and its head [C, D], which starts at zero."""
    tower = episode.fresh_tower().train()
    # Made on `meta`, where nothing is drawn: torch's own generator stays where it was.
    head = nn.Linear(tower.tower.dim, episode.inputs.class_count, device="meta")
    like = next(tower.parameters())
    head = head.to_empty(device=like.device).to(like.dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    shots, labels = map(torch.from_numpy, (episode.inputs.train, episode.inputs.labels))
    groups = [
        {"params": list(tower.trainable().values()), "lr": LEARNING_RATE},
        {"params": list(head.parameters()), "lr": HEAD_LEARNING_RATE},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(shots) // BATCH_SIZE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    generator = torch.Generator().manual_seed(derived_seed(episode.inputs.seed, "cnn"))
    for rows, hidden in batches(shots, BATCH_SIZE, steps, generator):
        optimiser.zero_grad()
        loss(tower, head, hidden, labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        falling.step()
    return tower, head


def fit_predict(episode: TunedEpisode, epochs: int = EPOCHS) -> Doubles:
    """Softmax over the mean logits of image and mirror image, [m, C].

    The head is linear: the mean of its logits is what it makes of the mean of the features.
    """
    tower, head = fit(episode, epochs)
    weight, bias = (part.detach().cpu().double().numpy() for part in (head.weight, head.bias))
    queries = episode.encoded(tower).queries
    return np.asarray(softmax(queries @ weight.T + bias, axis=1))
