"""What a site's held-out images say of its predictions: how sure they are, and when to say nothing.

Three things are fitted on them, each patient counting once: the temperature of the probabilities,
the limit of the prediction sets, and how unlike an image may be to those that the site learnt from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.method.conformal import (
    patient_weights,
    patients_needed,
    score_limit,
    sets_within,
    share_at_least,
)
from hica.method.temperature import fitted_temperature
from hica.steps.predictions import probabilities_of

Matrix = NDArray[np.floating[Any]]

UNUSUAL = 0.02
"""An image is unlike the site's where at most this share of the held-out patients' are as unlike;
with fewer than 49 patients, where none is."""
NEAREST = 5
"""Images that an image is compared with."""
FOLDS = 5


@dataclass(frozen=True)
class HeldOut:
    """What the models make of a site's held-out images, and what is right.

    Attributes:
        logits: [n, C].
        labels: [n], class indices.
        groups: [n], the patient of each.
        distances: [n], how unlike each is to the images that were learnt from.
    """

    logits: Matrix
    labels: NDArray[np.integer]
    groups: Sequence[str]
    distances: Matrix

    @property
    def patients(self) -> int:
        """How many."""
        return len(set(self.groups))


@dataclass(frozen=True)
class Calibration:
    """How a site's logits are read.

    Attributes:
        temperature: What logits are divided by.
        limit: Classes with 1 - p of at most this are in the set; infinite: all always are.
        coverage: What share of the sets holds the right class, as promised.
    """

    temperature: float
    limit: float
    coverage: float

    @property
    def promises(self) -> bool:
        """Whether there are patients enough for the coverage."""
        return math.isfinite(self.limit)

    def probabilities(self, logits: Matrix) -> NDArray[np.float64]:
        """[n, C]."""
        return np.asarray(probabilities_of(logits / self.temperature), dtype=np.float64)

    def sets(self, logits: Matrix) -> NDArray[np.bool_]:
        """[n, C], the classes that an image may be of."""
        return sets_within(self.probabilities(logits), self.limit)


def calibrated(found: HeldOut, coverage: float) -> Calibration:
    """Temperature and limit from all held-out images."""
    return _fitted(found.logits, found.labels, patient_weights(found.groups), coverage)


def _fitted(
    logits: Matrix, labels: NDArray[np.integer], weights: NDArray[np.float64], coverage: float
) -> Calibration:
    temperature = fitted_temperature(logits, labels, weights)
    own = probabilities_of(logits / temperature)[np.arange(len(labels)), labels]
    return Calibration(temperature, score_limit(1 - own, weights, coverage), coverage)


@dataclass(frozen=True)
class Checked:
    """How the sets do on patients that they were not calibrated on: in folds of the held-out ones.

    Attributes:
        covered: Share of the patients' images whose set holds the right class.
        single: Share whose set is one class.
        patients: How many patients were held out.
    """

    covered: float
    single: float
    patients: int


def cross_checked(found: HeldOut, coverage: float) -> Checked | None:
    """Coverage in folds over patients; None where a fold could promise nothing."""
    names = sorted(set(found.groups))
    if len(names) * (FOLDS - 1) // FOLDS < patients_needed(coverage):
        return None
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    folds = np.array([fold[name] for name in found.groups])
    weights = patient_weights(found.groups)
    covered, single = np.zeros(len(folds)), np.zeros(len(folds))
    for number in range(FOLDS):
        here, others = folds == number, folds != number
        fitted = _fitted(found.logits[others], found.labels[others], weights[others], coverage)
        sets = fitted.sets(found.logits[here])
        covered[here] = sets[np.arange(int(here.sum())), found.labels[here]]
        single[here] = sets.sum(axis=1) == 1
    return Checked(
        float(np.average(covered, weights=weights)),
        float(np.average(single, weights=weights)),
        len(names),
    )


def distances(images: Matrix, learnt_from: Matrix) -> Matrix:
    """How unlike images [n, D] are to others [m, D]: 1 - mean of the nearest cosines, of unit rows.

    Nearest neighbours in a trained embedding tell images of another kind as well as anything (Sun
    et al., 2022, equation 2).
    """
    cosines = images @ learnt_from.T
    count = min(NEAREST, cosines.shape[1])
    nearest = np.partition(cosines, cosines.shape[1] - count, axis=1)[:, -count:]
    return np.asarray(1 - nearest.mean(axis=1))


def unlike(found: HeldOut, new: Matrix) -> NDArray[np.bool_]:
    """[m], whether images at distances [m] are unlike the site's."""
    weights = patient_weights(found.groups)
    # Of few patients the least p-value is above the level: then further than all of them counts.
    level = max(UNUSUAL, 1 / (weights.sum() + 1) + 1e-9)
    return np.asarray(share_at_least(found.distances, weights, new) <= level)
