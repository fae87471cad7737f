"""Reconstruction: what a site's images look like, from its class sums or from one update.

The site holds a few images of one class. What is sought is the embedding of one of them, which is
all that the rest of the model, and a search in a public archive, would need of it. Success is the
cosine between what was found and the truth, beside that of a guess that has seen nothing: the mean
embedding of the class at the other sites (at the site itself where it is the only one).

- class sums: the direction of the class sum. Of one image the sum is the embedding.
- update of the class texts: a trained class text is pulled toward the images of its class, and the
  others are pushed away; the difference of these changes points at the embedding.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.method.examples import Examples
from hica.method.intervals import paired_interval
from hica.privacy.noise import SeededNoise
from hica.privacy.release import units_of
from hica.progress import track
from hica.seeds import derived_seed
from hica.wire.weight_names import BANK_CLASSES
from hica_simulations.experiments.audit.settings import Setting
from hica_simulations.experiments.audit.site_side import class_sums, mean_change, round_change
from hica_simulations.experiments.audit.world import Start, World, make_start, rows_of

SIZES = (1, 5, 20)
"""Images of the class at each site."""
TARGETS = 30
"""Images sought, for each size."""

ATTACKS = ("class sums", "update of the class texts")

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Recovered:
    """How near an attack came.

    Attributes:
        attack: One of `ATTACKS`.
        images: Images of the class at each site.
        targets: Images that were sought.
        cosine: Mean between what was found and the truth.
        low, high: Its 95 % t-interval over targets.
        guess: Mean cosine of a guess.
    """

    setting: str
    attack: str
    images: int
    targets: int
    cosine: float
    low: float
    high: float
    guess: float


def reconstruct(world: World, setting: Setting) -> list[dict[str, Any]]:
    """All attacks in one setting; one entry of `Recovered` for each attack and size."""
    starts = [make_start(world, study) for study in (setting.statistics, setting.training)]
    known_sums, known_update = (_embedded(world, start) for start in starts)
    labels = [hospital.pool.labels.numpy() for hospital in world.hospitals]
    classes = np.unique(labels[0])
    smallest = min(int((of == c).sum()) for of in labels for c in classes)
    found: list[Recovered] = []
    for images in (size for size in SIZES if size <= smallest):
        sums, texts = [], []
        for target in track(range(TARGETS), f"{setting.title}: reconstruction, {images}", TARGETS):
            seed = derived_seed(world.study.study.seed, setting.name, "rebuild", images, target)
            draws = np.random.default_rng(seed)
            label = int(classes[draws.integers(len(classes))])
            # What each site that is seen holds; the first image of the first one is sought.
            rows = [
                draws.permutation(np.flatnonzero(of == label))[:images].tolist()
                for of in labels[: None if setting.summed else 1]
            ]
            chosen = zip(world.hospitals, rows, strict=False)
            held = [hospital.pool.rows(torch.tensor(row)) for hospital, row in chosen]
            noise = SeededNoise(int(draws.integers(2**62)))
            sought, guess = _truth_and_guess(known_sums, labels, rows, label)
            class_sum = _class_sum(setting, known_sums, held, rows, label, noise)
            sums.append((_cosine(class_sum, sought), guess))
            sought, guess = _truth_and_guess(known_update, labels, rows, label)
            change = _mean_change(setting, starts[1], held, noise)
            if BANK_CLASSES in change:
                texts.append((_cosine(_toward(change[BANK_CLASSES], label), sought), guess))
        found += [
            _summary(setting, attack, images, pairs)
            for attack, pairs in zip(ATTACKS, (sums, texts), strict=True)
            if pairs
        ]
    return [asdict(each) for each in found]


def _embedded(world: World, start: Start) -> list[Vector]:
    """Embeddings [n, D] of every site's images under a public start."""
    start.reset()
    return [rows_of(start.model, hospital.pool) for hospital in world.hospitals]


def _truth_and_guess(
    embedded: list[Vector], labels: list[NDArray[np.int64]], rows: list[list[int]], label: int
) -> tuple[Vector, float]:
    """The embedding that is sought, and the cosine of a guess with it."""
    truth = embedded[0][rows[0][0]]
    return truth, _cosine(embedded[-1][labels[-1] == label].mean(axis=0), truth)


def _class_sum(
    setting: Setting,
    embedded: list[Vector],
    held: list[Examples],
    rows: list[list[int]],
    label: int,
    noise: SeededNoise,
) -> Vector:
    total = np.zeros(embedded[0].shape[1])
    for known, examples, chosen in zip(embedded, held, rows, strict=False):
        whose = units_of(setting.training, examples.groups)
        left = class_sums(setting, known[chosen], examples.labels.numpy(), whose, noise)
        total += left.sums[label]
    return total


def _mean_change(
    setting: Setting, start: Start, held: list[Examples], noise: SeededNoise
) -> dict[str, Tensor]:
    """One round's change of the weights, the mean over the sites that are seen."""
    changes = []
    for examples in held:
        generator = torch.Generator().manual_seed(int(noise.uniform(1)[0] * 2**53))
        changes.append(round_change(setting, start, examples, len(examples), noise, generator))
    start.reset()
    return mean_change(changes)


def _toward(change: Tensor, label: int) -> Vector:
    """Where the class text moved, less where the others did."""
    total: Tensor = 2 * change[label] - change.sum(dim=0)
    return np.asarray(total.double().cpu().numpy())


def _cosine(found: Vector, truth: Vector) -> float:
    lengths = float(np.linalg.norm(found) * np.linalg.norm(truth))
    return float(found @ truth) / max(lengths, 1e-12)


def _summary(
    setting: Setting, attack: str, images: int, pairs: list[tuple[float, float]]
) -> Recovered:
    mean, low, high = paired_interval([cosine for cosine, _ in pairs])
    guess = float(np.mean([guess for _, guess in pairs]))
    return Recovered(setting.name, attack, images, len(pairs), mean, low, high, guess)
