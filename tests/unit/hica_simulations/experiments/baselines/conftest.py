"""A small episode of three sites with a shift, on which references can be computed in loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hica.images.preprocess import Preprocess
from hica.text.bank import orthonormal_map
from hica.towers.adaptation import AdaptedTower, adapt
from hica.towers.pooling import pool
from hica.towers.tiny import TinyImageTower, TinyTextTower
from hica_simulations.experiments.baselines.episode import Episode
from hica_simulations.experiments.baselines.prompts import Prompts
from hica_simulations.experiments.baselines.tuning import TunedEpisode

CLASSES, DIM = 3, 8
SIDE = 32


def make_episode(seed=0, per_class=4, sites=3, views=2, noise=0.6):
    rng = np.random.default_rng(seed)
    axes = np.eye(CLASSES, DIM)

    def drawn(each):
        labels = np.tile(np.repeat(np.arange(CLASSES), each), sites)
        places = np.repeat(np.arange(sites), CLASSES * each)
        shift = 0.5 * np.random.default_rng(9).standard_normal((sites, DIM))
        means = 2.0 + 2.0 * axes[labels] + shift[places]
        features = means[:, None] + noise * rng.standard_normal((len(labels), views, DIM))
        return features, labels, places

    train, labels, places = drawn(per_class)
    test, truth, there = drawn(10)
    text = axes - axes.mean(axis=0) + 0.1 * rng.standard_normal((CLASSES, DIM))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return Episode(train, labels, places, test, there, CLASSES, seed, text), truth


@pytest.fixture
def episode():
    return make_episode()[0]


@pytest.fixture
def truth():
    return make_episode()[1]


@pytest.fixture
def prompted(episode):
    """The episode with a small text tower of double precision, for finite differences."""
    names = ["benign mass", "malignant", "normal tissue"]
    words = "an oval mass with a smooth margin and posterior shadowing"
    tower = TinyTextTower([*names, words], seed=0).double()
    return replace(episode, prompts=Prompts(tower, names, orthonormal_map(128, DIM, 0)))


class DoubleTower(AdaptedTower):
    """An adapted tower of double precision, for finite differences and slow references."""

    def forward(self, hidden, weights):
        pixels = hidden.dtype == torch.uint8
        hidden = self.tower.preprocess.normalise(hidden) if pixels else hidden
        pooled, patches = self.tower.suffix(hidden.double(), self.last)
        return pooled, pool(patches, weights)


def make_tuned(train):
    """Discs, stripes and chequers in noise, at three sites; the texts lie near the classes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2 < (SIDE / 3) ** 2
    shapes = np.stack([disc, y // 4 % 2 == 0, (y // 4 + x // 4) % 2 == 0])

    def drawn(each, views):
        labels = np.tile(np.repeat(np.arange(CLASSES), each), 3)
        places = np.repeat(np.arange(3), CLASSES * each)
        clean = 60.0 + 20.0 * places[:, None, None] + 60.0 * shapes[labels]
        noisy = clean[:, None] + 30 * rng.standard_normal((len(labels), views, SIDE, SIDE))
        grey = noisy.clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), labels, places

    (shots, labels, sites), (tests, truth, there) = drawn(3, 3), drawn(4, 2)
    half = (0.5, 0.5, 0.5)
    small = TinyImageTower(1, Preprocess(SIDE, half, half, "bilinear", "squash"))
    small.grid = SIDE // 8
    adapted = adapt(small, train, lora_rank=2, lora_alpha=1.0)
    tower = DoubleTower(adapted.tower.double(), adapted.last)

    def frozen(pixels):
        flat = torch.from_numpy(pixels).flatten(0, 1)
        if tower.last < tower.tower.depth:
            with torch.no_grad():
                flat = tower.tower.prefix(tower.tower.preprocess.normalise(flat).double(), 2)
        return flat.view(*pixels.shape[:2], *flat.shape[1:]).numpy()

    inputs = Episode(frozen(shots), labels, sites, frozen(tests), there, CLASSES, 0)
    rows = TunedEpisode(tower, inputs).encoded(tower).unit_shots
    text = np.stack([rows[labels == label].mean(axis=0) for label in range(CLASSES)])
    text += 0.02 * rng.standard_normal(text.shape)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return TunedEpisode(tower, replace(inputs, text=text)), truth


@pytest.fixture(scope="session")
def tuned_last():
    """The last two blocks of a small tower of double precision are trained."""
    return make_tuned("last-2")[0]


@pytest.fixture(scope="session")
def tuned_lora():
    """Factors of rank 2 beside its 1×1 convolutions are."""
    return make_tuned("lora")[0]


@pytest.fixture(scope="session")
def tuned_truth():
    return make_tuned("last-2")[1]
