"""Centre: the mean of features over all sites, and their spread where a study scales by it.

It is estimated anew whenever weights have been averaged: averaged weights have other activations
than any site trained with, as BatchNorm's statistics after weight averaging (SWA, Izmailov et al.
2018). With the first centre kept, predictions drift toward some of the classes. A private study
pays for every estimate and makes one, at the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hica.method.pseudo_labels import Matrix, Vector, within_sphere
from hica.steps.arrays import COUNT_SCALE, LARGEST_FEATURE, LARGEST_UNIT, Array, counts, sums
from hica.steps.state import State
from hica.steps.step import Answer, Received, Rows, SiteData, Stage, Statistic, Turn
from hica.study import Study
from hica.wire.messages import Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel

STILL = 0.05
"""Of the mean spread, that a feature has which is the same in all images."""
FINEST = STILL / (1 + STILL)
"""The smallest scale of a feature, of the mean scale."""


class Centre(Statistic):
    """Sums of raw features of whole images and of their regions."""

    name = "centre"
    kind = "train.moments"
    role = "unlabelled"
    leaves = (
        "sum of the features of your training images, where the study scales them of their squares "
        "too, and their number"
    )
    centred = False
    keeps = ("centre",)

    def turns(self, study: Study) -> Iterator[Turn]:
        """At the start, after stage 1 and after every round of stage 2."""
        if study.alignment.centring == "none" or study.privacy.mechanism == "prototypes":
            return
        yield self._turn(0, Stage.START, 0)
        if study.privacy.is_private:
            return
        if study.pretraining.rounds:
            yield self._turn(1, Stage.CLASSES, 0)
        for number in range(study.alignment.rounds):
            yield self._turn(2 + number, Stage.ALIGNMENT, number)

    def _turn(self, round_: int, stage: Stage, number: int) -> Turn:
        return Turn(self, (stage, number), round_, self.name)

    def estimates(self, study: Study) -> tuple[str, ...]:
        """The centre, and the scale where the study has one."""
        return ("centre", "scale") if study.alignment.scaling == "global" else ("centre",)

    def answers(self, study: Study) -> tuple[Array, ...]:
        """Sums and counts of images (row 0) and of regions (row 1); a patient is in both."""
        most = float(self.most_images(study) * study.regions.count)
        private = study.privacy.is_private  # its rows are unit, and one is the mean of all regions
        each = (LARGEST_UNIT, 2.0) if private else (LARGEST_FEATURE, 1.0 + study.regions.count)
        parts = [
            sums((2, "width"), LARGEST_FEATURE * most, math.sqrt(2.0), each[0]),
            counts(2, LARGEST_FEATURE * most, math.sqrt(2.0), each[1]),
        ]
        if study.alignment.scaling == "global":
            one = LARGEST_FEATURE**2
            parts.append(Array("squares", (2, "width"), "float64", 0.0, one * most, each=one))
        return tuple(parts)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """The site's sums; it keeps its own mean, for where that is used."""
        from hica.method.local_training import moments

        examples = data.examples("centre")
        found = moments(model, examples)
        own = (found.sums / found.counts.clamp(min=1).unsqueeze(1)).float()
        own[1] = own[1] if found.counts[1] > 0 else own[0]
        parts = {name: part.numpy() for name, part in found._asdict().items()}
        arrays = {each.name: parts[each.name] for each in self.answers(request.study)}
        return Answer(arrays, len(examples), keep={"centre": {"centre": own.numpy()}})

    def rows(self, data: SiteData, model: AlignmentModel, request: Request) -> Rows:
        """Unit features of every image, and the means of its regions'."""
        from hica.method.local_training import mean_features

        images, regions, has_regions = (
            part.numpy() for part in mean_features(model, data.examples("unlabelled"))
        )
        everyone = np.zeros(len(images), dtype=np.int64)
        return Rows(
            np.concatenate([images, regions]),
            np.concatenate([everyone, np.where(has_regions, 1, -1)]),
            np.tile(np.arange(len(images)), 2),
            len(images),
        )

    def combine(self, state: State, received: Received) -> State:
        """The mean over all sites, and the spread about it."""
        found, number = received.arrays["sums"], received.arrays["counts"]
        if received.study.privacy.is_private:
            centre = noisy_centre(found, number, received.deviation / COUNT_SCALE)
            return replace(state, centre=centre.astype(np.float32))
        centre = found / np.maximum(number, 1)[:, None]
        if number[1] == 0:  # no region anywhere: the row is never used, but must be finite
            centre[1] = centre[0]
        scale = state.scale
        if "squares" in received.arrays:
            scale = spread(centre, received.arrays["squares"], number).astype(np.float32)
        return replace(state, centre=centre.astype(np.float32), scale=scale)


def spread(means: Matrix, squares: Matrix, number: Vector) -> Matrix:
    """Standard deviation of every feature, plus a twentieth of their mean for those that are still.

    Of means [2, D] of whole images and regions, sums of squares [2, D] and the numbers [2] of
    images and regions. Gives [2, D], positive; 1 where there is nothing to take it from.
    """
    variance = squares / np.maximum(number, 1)[:, None] - np.square(means)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    scale = deviation + STILL * deviation.mean(axis=1, keepdims=True)
    return np.where((number > 0)[:, None] & (scale > 0), scale, 1.0)


def noisy_centre(found: Matrix, number: Vector, deviation: float) -> Matrix:
    """Mean features [2, D] of images and of regions; zero where the count is lost in noise.

    Of noisy sums [2, D] and counts [2]; `deviation` is the standard deviation of the noise in a
    count.
    """
    means = found / np.maximum(number, 1.0)[:, None]
    means[number < deviation] = 0.0
    return within_sphere(means)


CENTRE = Centre()
