"""Predict: images through a site's models, each to probabilities, and a class or no answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hica.errors import ConfigurationError, DataError
from hica.images.manifest import Record
from hica.images.pixels import image_of
from hica.method.local_training import Batch
from hica.method.operating_point import OperatingPoint, operating_point
from hica.progress import track
from hica_client.prediction.held_out import (
    Calibration,
    Checked,
    HeldOut,
    calibrated,
    cross_checked,
    distances,
    unlike,
)
from hica_client.prediction.models import Seen, SiteModels
from hica_client.prediction.unseen import Unseen

TOGETHER = 32
"""Images that are in memory at a time."""
FEWEST = 10
"""Held-out patients below whom nothing is calibrated."""
UNLIKE = "unlike the images that this site learnt from"
NO_CLASS = "like none of the classes"
SEVERAL = "may be of several classes"
TOO_FEW = "too few held-out patients to say how sure it is"


@dataclass(frozen=True)
class Region:
    """What a region of an image looks most like.

    Attributes:
        finding: The finding text that is nearest.
        similarity: Its cosine.
    """

    finding: str
    similarity: float


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    Attributes:
        image: As it was named.
        answer: The class; None: don't know.
        why: Why there is no answer, or what must be known beside it; empty: nothing.
        probabilities: Of each class; empty where the image could not be read.
        classes: Those that the image may be of, at the coverage; empty where nothing is promised.
        learnt_from: Whether the study was trained on this very image: then this says nothing.
        regions: What the regions show.
        called: Whether the class of the operating point is called; None without one.
        by_texts: By texts alone, of the study's classes and of unseen ones: softmax of cosines,
            not calibrated; empty without unseen ones.
    """

    image: str
    answer: str | None
    why: str
    probabilities: dict[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    learnt_from: bool = False
    regions: tuple[Region, ...] = ()
    called: bool | None = None
    by_texts: dict[str, float] = field(default_factory=dict)


class Predictor:
    """A site's models with what its held-out images say of them."""

    def __init__(self, models: SiteModels, coverage: float) -> None:
        """Calibrate on the site's held-out images.

        Raises:
            DataError: They cannot be read any more, or nothing was learnt from at this site.
        """
        self.models = models
        self.names = models.study.class_names
        self._learnt_from = models.learnt_from().images.numpy()
        self._trained_on = {
            models.session.roles.ids[row.name] for row in models.session.roles.train_in_use
        }
        self.held_out = self._held_out()
        self.calibration: Calibration | None = None
        self.checked: Checked | None = None
        self.called_from: tuple[str, OperatingPoint] | None = None
        self.unseen: Unseen | None = None
        if self.held_out is not None:
            self.calibration = calibrated(self.held_out, coverage)
            self.checked = cross_checked(self.held_out, coverage)

    def _held_out(self) -> HeldOut | None:
        session = self.models.session
        if not session.size("test"):
            return None
        seen, examples = self.models.held_out(), session.examples("test")
        far = distances(seen.embedded.images.numpy(), self._learnt_from)
        found = HeldOut(seen.logits, examples.labels.numpy(), examples.groups, far)
        return found if found.patients >= FEWEST else None

    def operating_point(
        self, name: str, sensitivity: float | None, specificity: float | None
    ) -> OperatingPoint:
        """Call a class from now on where it is likely enough for a sensitivity or specificity.

        Raises:
            ConfigurationError: The study has no such class, or not just one of the two is given.
            DataError: There are too few held-out patients.
        """
        if name not in self.names:
            raise ConfigurationError(f"--of {name}: the classes are {', '.join(self.names)}")
        if (sensitivity is None) == (specificity is None):
            raise ConfigurationError("--of: give just one of --sensitivity and --specificity")
        if self.held_out is None or self.calibration is None:
            raise DataError(
                f"held-out images: an operating point needs {FEWEST} patients at least; hold out "
                "more, or predict without one"
            )
        number = self.names.index(name)
        point = operating_point(
            self.calibration.probabilities(self.held_out.logits)[:, number],
            self.held_out.labels == number,
            self.held_out.groups,
            sensitivity=sensitivity,
            specificity=specificity,
        )
        self.called_from = (name, point)
        return point

    def predictions(self, records: Sequence[Record]) -> Iterator[Prediction]:
        """What is said of each image, in their order; one that cannot be read is told so."""
        left = iter(track(records, "predicting", len(records)))
        while chunk := list(islice(left, TOGETHER)):
            yield from self._of(chunk)

    def _of(self, records: Sequence[Record]) -> list[Prediction]:
        """Of a few images."""
        try:
            examples = self.models.examples(records)
        except DataError as error:
            if len(records) > 1:
                return [each for record in records for each in self._of([record])]
            return [Prediction(records[0].name, None, str(error))]
        return self.of_seen(records, self.models.seen(examples))

    def of_seen(self, records: Sequence[Record], seen: Seen) -> list[Prediction]:
        """What is said of images, by what the models make of them."""
        far = self._unlike(seen.embedded.images.numpy())
        shown = self.regions_of(seen.embedded)
        probabilities, sets = self._read(seen.logits)
        images = seen.embedded.images.numpy()
        by_texts = self.unseen.shares(images) if self.unseen else [{} for _ in records]
        return [
            self._said(
                record.name,
                probabilities[row],
                sets[row],
                bool(far[row]),
                learnt_from=image_of(record)[1] in self._trained_on,
                regions=shown[row],
                by_texts=by_texts[row],
            )
            for row, record in enumerate(records)
        ]

    def named_probabilities(self, logits: NDArray[Any]) -> list[dict[str, float]]:
        """Probabilities of each image, by class, of logits [n, C]."""
        return [
            {name: float(p) for name, p in zip(self.names, row, strict=True)}
            for row in self._read(logits)[0]
        ]

    def _read(self, logits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Probabilities [n, C] and the classes in question [n, C]."""
        calibration = self.calibration or Calibration(1.0, float("inf"), 0.0)
        return calibration.probabilities(logits), calibration.sets(logits)

    def _unlike(self, images: NDArray[Any]) -> NDArray[np.bool_]:
        if self.held_out is None:
            return np.zeros(len(images), dtype=bool)
        return unlike(self.held_out, distances(images, self._learnt_from))

    def _said(
        self,
        name: str,
        probabilities: NDArray[Any],
        within: NDArray[Any],
        far: bool,
        **more: Any,
    ) -> Prediction:
        """The answer, or why there is none."""
        said = {each: float(p) for each, p in zip(self.names, probabilities, strict=True)}
        likely = self.names[int(probabilities.argmax())]
        if self.called_from is not None:
            called, point = self.called_from
            more["called"] = said[called] >= point.threshold
        if self.calibration is None or not self.calibration.promises:
            return Prediction(name, likely, UNLIKE if far else TOO_FEW, said, **more)
        classes = tuple(each for each, inside in zip(self.names, within, strict=True) if inside)
        why = UNLIKE if far else {0: NO_CLASS, 1: ""}.get(len(classes), SEVERAL)
        return Prediction(name, None if why else classes[0], why, said, classes, **more)

    def regions_of(self, embedded: Batch) -> list[tuple[Region, ...]]:
        """The nearest finding of every region of every image."""
        findings = self.models.study.finding_names
        if not findings:
            return [() for _ in range(len(embedded.images))]
        texts = torch.from_numpy(self.models.texts()[1])
        similarity = embedded.regions @ texts.T  # [n, K, M]
        best, which = similarity.max(dim=2)
        return [
            tuple(
                Region(findings[int(which[row, k])], float(best[row, k]))
                for k in range(similarity.shape[1])
                if embedded.valid[row, k]
            )
            for row in range(len(similarity))
        ]
