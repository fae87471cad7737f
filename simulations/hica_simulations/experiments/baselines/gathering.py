"""From the sites' own shots and test images to an episode.

All baselines use exactly the episodes the sites drew, whatever represents an image.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.steps.step import Part
from hica_client.session import Session
from hica_simulations.experiments.baselines import pixels
from hica_simulations.experiments.baselines.episode import Episode, Floats, Labels

Represent = Callable[[Session, Part], tuple[NDArray[Any], Labels]]
"""Images [n, V, ...] of a session's role, `labelled`, `test` or `rest`, and the labels [n] of the
first two."""


def gathered(sessions: Sequence[Session], represent: Represent) -> Episode:
    """The shots of all sites and all their test images, in the order of the sites.

    After the test images come those with which sites use the prevalence they know: to a baseline
    both are images to predict.
    """
    study = sessions[0].study
    shots = [(n, represent(s, "labelled")) for n, s in enumerate(sessions) if s.roles.shots]
    tested = [(n, s) for n, s in enumerate(sessions) if s.roles.test]
    tests = [(n, represent(s, "test")) for n, s in tested]
    tests += [(n, represent(s, "rest")) for n, s in tested if s.roles.rest]
    return Episode(
        train=np.concatenate([images for _, (images, _) in shots]),
        labels=np.concatenate([labels for _, (_, labels) in shots]),
        sites=np.concatenate([np.full(len(labels), n) for n, (_, labels) in shots]),
        test=np.concatenate([images for _, (images, _) in tests]),
        test_sites=np.concatenate([np.full(len(images), n) for n, (images, _) in tests]),
        class_count=len(study.classes),
        seed=study.study.seed,
    )


def features(session: Session, role: Part) -> tuple[Floats, Labels]:
    """Frozen features [n, V, D] of the views of the whole images, and labels [n]."""
    hidden, labels = inputs(session, role)
    return hidden[:, :, 0].astype(np.float32), labels


def inputs(session: Session, role: Part) -> tuple[NDArray[Any], Labels]:
    """Outputs [n, V, ...] of what is frozen of the tower, and labels [n]."""
    examples = session.examples(role)
    return examples.hidden.numpy(), examples.labels.numpy()


def thumbnails(session: Session, role: Part) -> tuple[Floats, Labels]:
    """Grey thumbnails [n, 1, 256] of the images, and labels [n]."""
    images = [record.image for record in session.rows(role)]
    return pixels.thumbnails(images)[:, None], labels_of(session, role)


def labels_of(session: Session, role: Part) -> Labels:
    """[n] class indices."""
    names = session.study.class_names
    return np.array([names.index(row.label) for row in session.rows(role) if row.label])
