"""Predictions of all test images of a simulated run, put together from what each site keeps.

At real hospitals predictions stay where they are and only metrics travel. A simulation may look at
them all: paired comparisons of two methods, patient by patient, need them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hica.errors import CheckpointError
from hica.method.metrics import accuracy, balanced_accuracy, macro_auroc
from hica.method.reliability import expected_calibration_error
from hica.storage import write_atomically
from hica.study import Study
from hica_client.session import Session
from hica_client.site import load_site

DIGITS = 6
"""Decimal places of a probability on disk."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a method says of the test images.

    Attributes:
        probabilities: [n, C].
        labels: [n] true classes.
        groups: Patient (or group of near-duplicates) of each image; the same name, the same
            patient, in every run over the same data.
        sites: Name of the site that holds each image.
        classes: What the columns of `probabilities` stand for; empty where it is not known.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: list[str]
    sites: list[str]
    classes: Sequence[str] = ()

    def metrics(self) -> dict[str, float | None]:
        """Metrics over all images together, and of the site where they are lowest; in 0..1."""
        whole = _metrics(self.probabilities, self.labels)
        parts = []
        for name in dict.fromkeys(self.sites):
            here = np.array([site == name for site in self.sites])
            parts.append(_metrics(self.probabilities[here], self.labels[here]))
        worst = {
            f"worst_{name}": min((v for p in parts if (v := p[name]) is not None), default=None)
            for name in ("accuracy", "balanced_accuracy", "auroc")
        }
        return {**whole, **worst}

    def save(self, path: Path) -> None:
        """Write as JSON.

        Raises:
            StorageError: The disk is full or the folder may not be written.
        """
        table = vars(self) | {
            "probabilities": np.round(self.probabilities, DIGITS).tolist(),
            "labels": self.labels.tolist(),
        }
        write_atomically(path, json.dumps(table).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the predictions that `save` has written."""
        table = json.loads(path.read_text(encoding="utf-8"))
        probabilities = np.array(table.pop("probabilities"), np.float64)
        return cls(probabilities, np.array(table.pop("labels"), np.int64), **table)


def gathered(study: Study, site_files: Sequence[Path], sources: Mapping[str, str]) -> Predictions:
    """What the sites of a finished federation keep of their last evaluation.

    `sources` names, for a site, the manifest in which its patients' names are unique; without
    an entry it is the site itself.

    Raises:
        CheckpointError: A site that was tested has kept none, or its images have changed since.
    """
    parts = []
    for path in site_files:
        session = Session(load_site(path), study)
        if session.roles.test:
            kept = session.kept("predictions")
            if not np.array_equal(kept["images"], session.images("test")):
                raise CheckpointError(
                    f"{path.parent}: its images have changed since its last evaluation: run the "
                    "simulation anew, into another folder"
                )
            parts.append(of_site(session, kept["probabilities"], kept["labels"], sources))
    return joined(parts)


def of_site(
    session: Session,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    sources: Mapping[str, str],
) -> Predictions:
    """Predictions of a site's test images; `sources` as in `gathered`."""
    name = session.name
    groups = [f"{sources.get(name, name)}/{record.group}" for record in session.roles.test]
    sites = [name] * len(groups)
    return Predictions(probabilities, labels, groups, sites, session.study.class_names)


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several sites as one."""
    return Predictions(
        np.concatenate([part.probabilities for part in parts]).astype(np.float64),
        np.concatenate([part.labels for part in parts]).astype(np.int64),
        [group for part in parts for group in part.groups],
        [site for part in parts for site in part.sites],
        parts[0].classes,
    )


def _metrics(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, float | None]:
    area = macro_auroc(probabilities, labels)
    return {
        "accuracy": accuracy(probabilities, labels),
        "balanced_accuracy": balanced_accuracy(probabilities, labels),
        "auroc": None if np.isnan(area) else area,
        "ece": expected_calibration_error(probabilities, labels),
    }
