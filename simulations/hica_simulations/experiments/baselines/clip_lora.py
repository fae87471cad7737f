"""CLIP-LoRA: low-rank factors in the image tower, trained against the fixed class texts.

Zanella & Ben Ayed, CVPR Workshops 2024, "Low-Rank Few-Shot Adaptation of Vision-Language Models".
Every eligible layer W becomes W + (α/r)·B·A (Hu et al., 2021, eq. 3); the loss is that of the
zero-shot classifier itself, without a head. Rank, α, optimiser and weight decay are the authors'.
Departures:

- The class texts stay what they are for all baselines. The authors put factors on CLIP's text tower
  too; here the texts come from a tower that need not be the image tower's pair, and moving them
  without it is what CLAP and CoOp do already.
- The factors are on all linear layers of attention, theirs on queries, keys and values; in a tower
  without attention they are on the 1×1 convolutions (`hica.towers.lora`).
- 96 steps of 8 shots, however many shots there are, where they take 500 steps of 32 per shot and
  class on a GPU: with what is encoded before and after, about two minutes of one core at 224
  pixels. The rate is 20 times theirs for it.
- No dropout before the factors, which so short a training does not need.
- Temperature and centring are those of `Episode`. The centre moves with the weights: it is the mean
  over the shots of the features that each had when it was last seen, without a gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hica.seeds import derived_seed
from hica.towers.adaptation import AdaptedTower
from hica_simulations.experiments.baselines import zero_shot
from hica_simulations.experiments.baselines.episode import TEMPERATURE, Doubles
from hica_simulations.experiments.baselines.tuning import TunedEpisode, batches, encode, features

MODEL = {
    "model": {"train": "lora", "lora_rank": 2, "lora_alpha": 1},
    # Nothing is summed here, and a secure sum of factors is no study.
    "privacy": {"secure_aggregation": False, "noise": "local"},
}
"""What it sets in the study."""
STEPS = 96
BATCH_SIZE = 8
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2


def loss(found: Tensor, centre: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of features [B, D] with labels [B] against texts [C, D], unit rows."""
    rows = functional.normalize(found - centre, dim=1)
    return functional.cross_entropy(rows @ texts.T / TEMPERATURE, labels)


def fit(episode: TunedEpisode, steps: int) -> AdaptedTower:
    """A copy of the tower with trained factors."""
    tower, inputs = episode.fresh_tower(), episode.inputs
    device = next(tower.parameters()).device
    seen = torch.from_numpy(encode(tower, inputs.train)).mean(dim=1).to(device)
    texts = torch.from_numpy(inputs.class_texts).to(seen)
    labels = torch.from_numpy(inputs.labels).to(device)
    shots = torch.from_numpy(inputs.train)
    factors = list(tower.trainable().values())
    optimiser = torch.optim.AdamW(factors, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    generator = torch.Generator().manual_seed(derived_seed(inputs.seed, "clip_lora"))
    tower.train()
    for rows, pixels in batches(shots, BATCH_SIZE, steps, generator):
        found = features(tower, pixels)
        seen[rows] = found.detach()
        optimiser.zero_grad()
        loss(found, seen.mean(dim=0), texts, labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        falling.step()
    return tower


def fit_predict(episode: TunedEpisode, steps: int = STEPS) -> Doubles:
    """Zero-shot on the trained tower's features, centred by the shots' own anew: [m, C]."""
    return zero_shot.fit_predict(episode.encoded(fit(episode, steps)))
