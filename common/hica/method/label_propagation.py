"""Labels of the shots spread to a site's unlabelled images, where the shots say that it helps.

Zhou et al., "Learning with Local and Global Consistency", NeurIPS 2003 (scikit-learn's
LabelSpreading): every image passes its label on to the images most like it, F ← α·S·F + (1 - α)·Y.
A few shots cannot tune anything, but they can refuse: in cross-validation, labels spread from the
other shots must name the shots left out better than the nearest class mean does.

Equals are common here: shots lie in the pool a second time, and neighbours are counted, not
weighed. Rules, not rounding, decide between them.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.semi_supervised import LabelSpreading

from hica.ties import first_largest

Rows = NDArray[np.float64]
Labels = NDArray[np.int64]

NEIGHBOURS = 8
ALPHA = 0.8
FOLDS = 5
SUREST = 0.5
"""Share of the pool that gets a label: half of its images are less sure than the other half."""
UNKNOWN = -1
SAME_COSINE = 5e-7
"""Cosines no further apart are equal: embeddings are float32."""
SAME_SURENESS = 1e-12


def spread(rows: Rows, labels: Labels) -> Rows:
    """Class probabilities [n, C] of every row, which add up to 1; C is the largest label plus one.

    From unit embeddings [n, D] and class indices [n], -1 where unknown; every class that counts has
    some.
    """
    model = LabelSpreading(kernel=_neighbours, alpha=ALPHA)
    with warnings.catch_warnings():  # an image nobody is near to; it keeps even odds
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(rows, labels)
    found = np.zeros((len(rows), int(labels.max()) + 1))
    known = np.nan_to_num(model.label_distributions_, nan=1 / len(model.classes_))
    found[:, model.classes_] = known
    return found


def _neighbours(rows: Rows, _: Rows) -> Rows:
    """Graph [n, n]: 1 from a row to itself, its nearest, and all as near as the last of these."""
    cosines = rows @ rows.T
    last = min(NEIGHBOURS, len(rows))
    furthest = np.partition(cosines, -last, axis=1)[:, [-last]]
    return (cosines >= furthest - SAME_COSINE).astype(np.float64)


def helps(shots: Rows, labels: Labels, pool: Rows, seed: int) -> bool:
    """Whether labels spread over the pool name left-out shots better than class means do.

    Stratified cross-validation on the shots alone (unit embeddings [n, D], labels [n]) with folds
    drawn by `seed`; False where a class has a single shot. The pool is unlabelled unit embeddings
    [m, D].
    """
    classes, counts = np.unique(labels, return_counts=True)
    folds = min(FOLDS, int(counts.min()))
    if len(classes) < 2 or folds < 2 or not len(pool):
        return False
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(shots, labels)
    right_spread, right_means = 0, 0
    for train, test in splits:
        known = np.concatenate([labels[train], np.full(len(test) + len(pool), UNKNOWN)])
        rows = np.concatenate([shots[train], shots[test], pool])
        named = first_largest(spread(rows, known)[len(train) : len(train) + len(test)])
        right_spread += int((named == labels[test]).sum())
        means = np.stack([shots[train][labels[train] == c].mean(axis=0) for c in classes])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        nearest = classes[first_largest(shots[test] @ means.T)]
        right_means += int((nearest == labels[test]).sum())
    return right_spread > right_means


def propagated(shots: Rows, labels: Labels, pool: Rows, seed: int) -> Labels:
    """Labels [m] of the pool: of its surest half where spreading helps, else -1 throughout.

    Shots are unit embeddings [n, D] with labels [n]. Some may be in the pool [m, D] too, and get
    their own label. `seed` is that of the cross-validation.
    """
    nobody = np.full(len(pool), UNKNOWN)
    if not helps(shots, labels, pool, seed):
        return nobody
    odds = spread(np.concatenate([shots, pool]), np.concatenate([labels, nobody]))[len(shots) :]
    sureness = odds.max(axis=1)
    sure = sureness >= np.quantile(sureness, SUREST) - SAME_SURENESS
    return np.where(sure, first_largest(odds), UNKNOWN)
