"""What to label next: typical images of the groups of similar ones that have no label yet.

TypiClust (Hacohen, Dekel & Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High
and Low Budgets", ICML 2022): with few labels, the image that many others are like is worth more
than the one that a model is least sure of. Images are clustered, and of every cluster without a
label the most typical one is taken. Once there is a trained model, it is the one that the model is
least sure of among the more typical half.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hica.ties import first_largest

Rows = NDArray[np.float64]

NEIGHBOURS = 20
"""Of the same cluster, that typicality is measured to."""
SMALLEST = 5
"""Images of a cluster, below which it is passed over while there are others."""
MOST_CLUSTERS = 500
TYPICAL_SHARE = 0.5
"""Of a cluster's images, among which a trained model chooses."""


class Suggestion(NamedTuple):
    """An image that should be labelled."""

    row: int
    """Its index among the unlabelled images."""
    alike: int
    """Images in its cluster."""
    typicality: float
    """One over the mean distance to its neighbours in the cluster."""
    uncertainty: float
    """From 0 to 1: entropy of the model's probabilities, or how near a second cluster is."""


def suggested(
    rows: Rows,
    groups: Sequence[str],
    labelled: Rows,
    count: int,
    seed: int,
    entropy: NDArray[np.float64] | None = None,
) -> list[Suggestion]:
    """At most `count` suggestions, the first the most useful; one of each patient.

    Args:
        rows: Unit embeddings [n, D] of images without a label.
        groups: The patient of each.
        labelled: Unit embeddings [m, D] of those that have one.
        count: Labels that can be given.
        seed: Of the clustering.
        entropy: [n], in 0..1, of a trained model's probabilities; None: there is no such model.
    """
    count = min(count, len(set(groups)))
    if count < 1:
        return []
    every = np.concatenate([labelled, rows])
    clusters, nearness = _clustered(every, min(len(labelled) + count, MOST_CLUSTERS), seed)
    own = clusters[len(labelled) :]
    sizes = np.bincount(clusters)
    has = np.bincount(clusters[: len(labelled)], minlength=len(sizes))
    free = np.ones(len(rows), dtype=bool)
    uncertain = nearness[len(labelled) :] if entropy is None else entropy
    found: list[Suggestion] = []
    names = np.array(groups)
    while len(found) < count:
        left = np.bincount(own[free], minlength=len(sizes)) > 0
        large = left & (sizes >= SMALLEST)
        among = np.flatnonzero(large if large.any() else left)
        # The fewest labels first, then the largest, then by index.
        cluster = min(among, key=lambda each: (has[each], -sizes[each], each))
        members = np.flatnonzero((own == cluster) & free)
        typicality = _typicality(rows[members])
        place = int(first_largest(typicality[None])[0])
        if entropy is not None:
            half = np.sort(typicality)[::-1][int((len(members) - 1) * TYPICAL_SHARE)]
            place = int(
                first_largest(np.where(typicality >= half, entropy[members], -1.0)[None])[0]
            )
        row = int(members[place])
        found.append(
            Suggestion(row, int(sizes[cluster]), float(typicality[place]), float(uncertain[row]))
        )
        has[cluster] += 1
        free &= names != names[row]
    return found


def _clustered(
    rows: Rows, clusters: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cluster [n] of each row, and how near a second one is [n]: 1 where both are as near."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    clusters = min(clusters, len(np.unique(rows.round(9), axis=0)))
    kind = KMeans if clusters <= 50 else MiniBatchKMeans
    distances = kind(clusters, n_init=3, random_state=seed).fit_transform(rows)
    labels = first_largest(-distances).astype(np.int64)
    if clusters == 1:
        return labels, np.zeros(len(rows))
    nearest = np.partition(distances, 1, axis=1)
    return labels, nearest[:, 0] / np.maximum(nearest[:, 1], 1e-12)


def _typicality(rows: Rows) -> NDArray[np.float64]:
    """[n], one over the mean distance to the nearest neighbours; a single row has 1."""
    if len(rows) == 1:
        return np.ones(1)
    count = max(1, min(NEIGHBOURS, len(rows) // 2))
    squares = np.maximum(2 - 2 * rows @ rows.T, 0.0)
    np.fill_diagonal(squares, np.inf)
    nearest = np.sqrt(np.partition(squares, count - 1, axis=1)[:, :count])
    return np.asarray(1 / np.maximum(nearest.mean(axis=1), 1e-6))
