"""Shrinkage: how far a site's classes are its own, beyond what so few shots leave to chance.

The class means of a site differ from those of all sites because its patients and machines do, and
because it has few shots. The positive-part James-Stein estimator knows how much the second alone
would give, and moves from the means of all towards the site's own by what is beyond it: by
max(0, 1 - E|chance|²/|difference|²) of the way (James and Stein 1961; Efron and Morris 1973,
Stein's estimation rule and its competitors: an empirical Bayes approach, JASA 68:117-130). So sites
that are alike keep to what they share, and one that differs to what is its own.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class ClassMeans(NamedTuple):
    """Means of a site's shots, by class."""

    rows: Array
    """[C, D]; zero for a class without shots."""
    errors: Array
    """[C] expected squared distance of a row from what more shots would give; infinite below two
    shots, which do not tell."""


def class_means(rows: Array, labels: Array, classes: int) -> ClassMeans:
    """Of embeddings [n, D] with labels [n] in 0..C-1."""
    means, errors = np.zeros((classes, rows.shape[1])), np.full(classes, np.inf)
    for name in range(classes):
        own = rows[labels == name]
        if len(own):
            means[name] = own.mean(axis=0)
        if len(own) > 1:
            errors[name] = own.var(axis=0, ddof=1).sum() / len(own)
    return ClassMeans(means, errors)


def own_share(own: ClassMeans, everyone: Array, sites: float) -> float:
    """Weight of the site's own means beside those of all sites [C, D], in 0..1.

    Class means count as they differ from each other: their mean over the classes is taken off.
    `sites` is how many there are, this one among them, each with about as many shots: 1/sites of
    the means of all are the site's own. A site that has two shots of fewer than two classes has
    nothing to go by, and keeps to what all share.
    """
    known = np.isfinite(own.errors)
    if known.sum() < 2 or sites < 2:
        return 0.0
    centred = own.rows[known] - own.rows[known].mean(axis=0)
    apart = centred - (everyone[known] - everyone[known].mean(axis=0))
    # Of c centred means the errors add up to (1 - 1/c) of those of the means.
    chance = (1 - 1 / known.sum()) * own.errors[known].sum() * (1 - 1 / sites)
    distance = float(np.square(apart).sum())
    return max(0.0, 1.0 - chance / distance) if distance > 0 else 0.0
