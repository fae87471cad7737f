"""What the coordinator makes of noisy sums: all of it is processing after the release, and free."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hica.method.pseudo_labels import ClusterSums
from hica.privacy.budget import statistics_multiplier
from hica.privacy.statistics import COUNT_SCALE, SENSITIVITY
from hica.secure_sum.forms import terms_of
from hica.study import Study

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def sum_noise(study: Study, sites: int) -> float:
    """Standard deviation of the noise in every number of a class sum over `sites` sites.

    Where noise is shared out, each site adds as much as is needed if only the threshold's number
    of sites stays.
    """
    distributed = study.privacy.noise == "distributed"
    enough = terms_of(study).threshold(sites) if distributed else 1
    return statistics_multiplier(study) * SENSITIVITY * math.sqrt(sites / enough)


def count_noise(study: Study, sites: int) -> float:
    """The same of a count."""
    return sum_noise(study, sites) / COUNT_SCALE


def noisy_centre(sums: Matrix, counts: Vector, deviation: float) -> Matrix:
    """Mean features [2, D] of images and of regions; zero where the count is lost in noise."""
    means = sums / np.maximum(counts, 1.0)[:, None]
    means[counts < deviation] = 0.0
    return _within_sphere(means)


def noisy_lloyd_step(
    centroids: Matrix, part: ClusterSums, subspace: Matrix, deviation: float
) -> Matrix:
    """One Lloyd step; a cluster whose count is lost in noise keeps its centroid.

    Args:
        centroids: [k, D], in the subspace.
        part: Sums [k, d], in the coordinates of the subspace, and counts [k], over all sites.
        subspace: [D, d] orthonormal columns.
        deviation: Of the noise in a count.
    """
    seen = part.counts > deviation
    moved = centroids.copy()
    moved[seen] = _within_sphere(part.sums[seen] / part.counts[seen, None]) @ subspace.T
    return moved


class Classifier(NamedTuple):
    """Linear scores x·rowᵀ − offset [C] of unit features x [D]."""

    rows: Matrix
    offsets: Vector


def nearest_mean(sums: Matrix, counts: Vector, deviation: float) -> Classifier:
    """The nearest of noisy class means, x·m_c − ½·|m_c|², with the noise taken out of the norms.

    A mean's squared norm is larger by D times the noise's variance, on average, and differently so
    for classes of different size. Features are not centred: subtracted from an image, a noisy
    centre would put its noise, which may be longer than the image, into the image's direction; in
    a score noise counts along one direction only.

    Args:
        sums: [C, D].
        counts: [C], at least 1.
        deviation: Standard deviation of the noise in a sum.
    """
    means = sums / counts[:, None]
    bias = means.shape[1] * (deviation / counts) ** 2
    return Classifier(means, ((means**2).sum(axis=1) - bias) / 2)


def with_texts(means: Classifier, texts: Matrix) -> Classifier:
    """Scores of the class means and of the texts [C, D] in equal parts, both without offset."""
    centre = means.rows.mean(axis=0)
    radius = np.linalg.norm(means.rows - centre, axis=1).mean()
    rows = (means.rows - centre) / radius + texts
    offsets = (means.offsets - means.rows @ centre) / radius + texts @ centre
    return Classifier(rows, offsets)


def as_bank(classifier: Classifier, temperature: float) -> tuple[Matrix, Vector]:
    """Unit rows [C, D] and intercepts [C] with which a model's logits rank as the scores do.

    Scores keep their order when one vector is taken off all rows. That which leaves all of them
    equally long is the centre of the sphere through them (Fiedler 2011, ch. 1.4); then their common
    length is a matter of temperature.

    Args:
        classifier: Rows no three of which lie on a line.
        temperature: Divides the model's cosines.
    """
    rows, offsets = classifier
    edges = rows[1:] - rows[0]
    step = np.linalg.lstsq(edges, (edges**2).sum(axis=1) / 2, rcond=None)[0]
    spokes = rows - (rows[0] + step)
    radius = np.linalg.norm(spokes, axis=1, keepdims=True)
    bias = -offsets / (radius[:, 0] * temperature)
    return spokes / radius, bias - bias.mean()


def _within_sphere(means: Matrix) -> Matrix:
    """Rows of norm 1 at most, as means of unit rows are."""
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(norms, 1.0))
