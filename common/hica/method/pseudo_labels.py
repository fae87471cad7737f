"""Stage 1, image side: federated k-means, whose clusters are the pseudo-labels.

Sites never send features. Each starts from a few centroids of its own, the coordinator merges
them, and then every round sites send (sums, counts) per cluster. One Lloyd step from these sums
is the step pooled k-means would take, so all sites number their clusters alike; site-local
numbers would make the average of classification heads meaningless.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hica.ties import first_largest

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Labels = NDArray[np.int64]


class ClusterSums(NamedTuple):
    """What a site sends in a Lloyd round: `sums` [k, D] and `counts` [k]."""

    sums: Matrix
    counts: Vector


def assign(features: Matrix, centroids: Matrix) -> Labels:
    """Index 0..k-1 of the nearest centroid of each row, the lowest index on ties (`hica.ties`).

    Of features [n, D] and centroids [k, D]; gives [n].
    """
    # ‖x − c‖² without ‖x‖², which is the same for every c.
    distances = (centroids**2).sum(axis=1) - 2.0 * features @ centroids.T
    labels: Labels = first_largest(-distances).astype(np.int64)
    return labels


def cluster_sums(features: Matrix, centroids: Matrix) -> ClusterSums:
    """A site's part of one Lloyd step: sums and counts of its rows per nearest centroid."""
    labels = assign(features, centroids)
    sums = np.zeros_like(centroids)
    np.add.at(sums, labels, features)
    return ClusterSums(sums, np.bincount(labels, minlength=len(centroids)).astype(np.float64))


def lloyd_step(centroids: Matrix, parts: list[ClusterSums]) -> Matrix:
    """The coordinator's part of one Lloyd step: Σ sums / Σ counts.

    Equal to a step of pooled k-means (Lloyd 1982). A cluster no image fell into keeps its
    centroid, as there is nothing to move it to.
    """
    sums = np.sum([part.sums for part in parts], axis=0)
    counts = np.sum([part.counts for part in parts], axis=0)
    occupied = counts > 0
    updated = centroids.copy()
    updated[occupied] = sums[occupied] / counts[occupied, None]
    return updated


def site_start(features: Matrix, clusters: int, seed: int) -> ClusterSums:
    """A site's own k clusters, from which the coordinator makes the common start.

    There may be fewer rows [n, D] than `clusters`. Of no more distinct rows each is a cluster, in
    lexicographic order; the remaining ones are zero. `seed` is that of the site's k-means++ draw.
    """
    from sklearn.cluster import KMeans  # loads for seconds, and only stage 1 needs it

    centroids = np.unique(features, axis=0)
    if len(centroids) > clusters:  # else in k-means++ all draws tie in the end
        fitted = KMeans(clusters, n_init=1, max_iter=20, random_state=seed).fit(features)
        centroids = fitted.cluster_centers_.astype(np.float64)
    parts = cluster_sums(features, centroids)
    padding = clusters - len(centroids)
    return ClusterSums(
        np.pad(parts.sums, ((0, padding), (0, 0))), np.pad(parts.counts, (0, padding))
    )


def drawn_start(clusters: int, dim: int, seed: int) -> Matrix:
    """Common start that depends on no image: unit rows [clusters, dim] in all directions alike.

    For where a site's own clusters may not be seen; Lloyd's steps do the rest. A row that no image
    is nearest to stays as it is.
    """
    rows = np.random.default_rng(seed).standard_normal((clusters, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def merge_starts(starts: list[ClusterSums], clusters: int, seed: int) -> Matrix:
    """Common start from the sites' own clusters: weighted k-means over their centroids.

    k-FED (Dennis, Li & Smith 2021, Algorithm 2), with k-means in place of its farthest-first start.
    Gives [k, D]; k is lowered to the number of distinct site centroids when there are fewer.
    """
    from sklearn.cluster import KMeans

    counts = np.concatenate([start.counts for start in starts])
    sums = np.concatenate([start.sums for start in starts])
    occupied = counts > 0
    points = sums[occupied] / counts[occupied, None]
    k = min(clusters, len(np.unique(points.round(9), axis=0)))  # rounding makes none distinct
    fitted = KMeans(k, n_init=10, random_state=seed).fit(points, sample_weight=counts[occupied])
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)


def within_sphere(means: Matrix) -> Matrix:
    """Rows brought to norm 1 where they are longer, as only a noisy mean of unit rows is."""
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(norms, 1.0))


def noisy_lloyd_step(
    centroids: Matrix, part: ClusterSums, subspace: Matrix, deviation: float
) -> Matrix:
    """One Lloyd step from noisy sums; a cluster whose count is lost in noise keeps its centroid.

    Centroids [k, D] lie in the subspace, whose columns [D, d] are orthonormal; sums [k, d] over all
    sites are in its coordinates. `deviation` is the standard deviation of the noise in a count.
    """
    seen = part.counts > deviation
    moved = centroids.copy()
    moved[seen] = within_sphere(part.sums[seen] / part.counts[seen, None]) @ subspace.T
    return moved
