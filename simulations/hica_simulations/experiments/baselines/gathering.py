"""From the sites' own shots and test images to an episode.

All baselines use exactly the episodes the sites drew, whatever represents an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hica.images.manifest import Record
from hica.text.bank import TextBank
from hica_client.session import Session
from hica_simulations.experiments.baselines import pixels
from hica_simulations.experiments.baselines.episode import Episode, Floats, Labels

Represent = Callable[[Session, str], tuple[NDArray[Any], Labels]]
"""Images [n, V, ...] of a session's role, `labelled`, `test` or `rest`, and the labels [n] of the
first two."""


def gathered(
    sessions: Sequence[Session], represent: Represent, text: Floats | None = None
) -> Episode:
    """The shots of all sites and all their test images, in the order of the sites.

    After the test images come those with which sites use the prevalence they know: to a baseline
    both are images to predict.
    """
    study = sessions[0].study
    shots = [(n, represent(s, "labelled")) for n, s in enumerate(sessions) if s.episode.indices]
    tests = [(n, represent(s, "test")) for n, s in enumerate(sessions) if s.test]
    tests += [(n, represent(s, "rest")) for n, s in enumerate(sessions) if s.test and s.rest]
    return Episode(
        train=np.concatenate([images for _, (images, _) in shots]),
        labels=np.concatenate([labels for _, (_, labels) in shots]),
        sites=np.concatenate([np.full(len(labels), n) for n, (_, labels) in shots]),
        test=np.concatenate([images for _, (images, _) in tests]),
        test_sites=np.concatenate([np.full(len(images), n) for n, (images, _) in tests]),
        class_count=len(study.classes),
        seed=study.study.seed,
        text=text,
    )


def features(session: Session, role: str) -> tuple[Floats, Labels]:
    """Frozen features [n, V, D] of the views of the whole images, and labels [n]."""
    hidden, labels = inputs(session, role)
    return hidden[:, :, 0].astype(np.float32), labels


def inputs(session: Session, role: str) -> tuple[NDArray[Any], Labels]:
    """Outputs [n, V, ...] of what is frozen of the tower, and labels [n]."""
    study = session.study
    dim = session.pipeline.tower.tower.dim
    bank = TextBank.assemble(
        study.class_texts,
        torch.zeros(len(study.classes), dim),
        torch.zeros(len(study.finding_names), dim),
    )
    prepared = {
        "labelled": session.labelled,
        "test": session.held_out,
        "rest": session.beyond_shots,
    }
    examples = prepared[role](bank)
    return examples.hidden.numpy(), examples.labels.numpy()


def thumbnails(session: Session, role: str) -> tuple[Floats, Labels]:
    """Grey thumbnails [n, 1, 256] of the images, and labels [n]."""
    images = [record.image for record in _records(session, role)]
    return pixels.thumbnails(images)[:, None], labels_of(session, role)


def _records(session: Session, role: str) -> list[Record]:
    """The episode's rows, the held-out ones, or those beyond the shots."""
    if role == "labelled":
        return [session.train[index] for index in session.episode.indices]
    return session.test if role == "test" else session.rest


def labels_of(session: Session, role: str) -> Labels:
    """[n] class indices."""
    names = session.study.class_names
    return np.array([names.index(row.label) for row in _records(session, role) if row.label])
