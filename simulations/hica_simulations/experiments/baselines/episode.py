"""Episode: what a baseline may use, and nothing else.

Whatever is fixed for all baselines (temperature, centring, which views are averaged) is fixed here,
and for our method alike, so that a difference in a table is a difference of methods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from hica_simulations.experiments.baselines.prompts import Prompts

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Labels = NDArray[np.int64]

TEMPERATURE = 0.1
"""Divides cosines in every softmax: the default of `alignment.temperature`. CLIP's 0.01 is learnt
with its towers, and would make the cosines of towers that are no pair into certainties."""


@dataclass(frozen=True, eq=False)
class Episode:
    """Shots to learn from and images to predict.

    Attributes:
        train: [n, V, D] features of every cached view; the first two are image and mirror image.
        labels: [n] class indices; a class may be missing.
        sites: [n] number of the site that holds each shot.
        test: [m, W, D] features of the test images, of at least their first view.
        test_sites: [m] number of the site that holds each test image.
        class_count: C.
        seed: Seed of all that is drawn.
        text: [C, D] unit rows of the text bank; None where there is none.
        prompts: The text tower, for what learns at its input; None where there is none.
    """

    train: Floats
    labels: Labels
    sites: Labels
    test: Floats
    test_sites: Labels
    class_count: int
    seed: int = 0
    text: Floats | None = None
    prompts: Prompts | None = None

    @cached_property
    def shots(self) -> Doubles:
        """[n, D], image and mirror image averaged."""
        return np.asarray(self.train[:, :2].mean(axis=1), np.float64)

    @cached_property
    def queries(self) -> Doubles:
        """[m, D], image and mirror image averaged."""
        return np.asarray(self.test[:, :2].mean(axis=1), np.float64)

    @cached_property
    def unit_shots(self) -> Doubles:
        """[n, D] unit rows, the mean of the shots subtracted before: CL2N (Wang et al., 2019).

        Features of networks that end in a rectifier lie in a narrow cone, in which all cosines are
        alike; ours are centred for the same reason. Sites can add up the mean without showing more.
        """
        return _unit(self.shots - self.shots.mean(axis=0))

    @cached_property
    def unit_queries(self) -> Doubles:
        """[m, D] unit rows, the mean of the shots subtracted before."""
        return _unit(self.queries - self.shots.mean(axis=0))

    @cached_property
    def targets(self) -> Doubles:
        """[n, C] one-hot labels."""
        return np.eye(self.class_count)[self.labels]

    @property
    def class_texts(self) -> Doubles:
        """[C, D] unit rows.

        Raises:
            ValueError: The episode has no text bank.
        """
        if self.text is None:
            raise ValueError("this baseline needs class texts, and the episode has none")
        return np.asarray(self.text, np.float64)

    @property
    def writer(self) -> Prompts:
        """What turns a learnt context into class texts.

        Raises:
            ValueError: The episode has no text tower.
        """
        if self.prompts is None:
            raise ValueError("this baseline needs a text tower, and the episode has none")
        return self.prompts

    @property
    def by_site(self) -> list[NDArray[np.intp]]:
        """Rows of the shots of every site that has some."""
        return [np.flatnonzero(self.sites == site) for site in np.unique(self.sites)]


FitPredict = Callable[[Episode], Doubles]
"""Fits on the shots; returns probabilities [m, C] of the test images."""


def probabilities(cosines: Doubles) -> Doubles:
    """Softmax over the classes of cosines [m, C] by the fixed temperature."""
    return np.asarray(softmax(cosines / TEMPERATURE, axis=1))


def _unit(rows: Doubles) -> Doubles:
    """Rows at length 1; a zero row stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
