"""Class means: where a trained text bank starts, or a whole classifier."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def blended_start(texts: Array, sums: Array, counts: Array) -> Array:
    """Unit rows [C, D] float32 of text + class mean; a class without examples keeps its text.

    A class mean, less the mean over classes, is the direction that a nearest-mean classifier uses.
    `texts` are unit rows [C, D]; `sums` [C, D] and `counts` [C] are those of unit image embeddings
    per class over all sites.
    """
    seen = counts > 0
    means = sums[seen] / counts[seen, None]
    means = means - means.mean(axis=0)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    start = texts.astype(np.float64).copy()
    start[seen] += means / np.maximum(norms, 1e-12)
    unit: Array = (start / np.linalg.norm(start, axis=1, keepdims=True)).astype(np.float32)
    return unit


class Classifier(NamedTuple):
    """Linear scores x·rowᵀ − offset [C] of unit features x [D]."""

    rows: Matrix
    offsets: Vector


def nearest_mean(sums: Matrix, counts: Vector, deviation: float) -> Classifier:
    """The nearest of noisy class means, x·m_c − ½·|m_c|², with the noise taken out of the norms.

    From sums [C, D], whose noise has the standard deviation `deviation`, and counts [C] of 1 or
    more. A mean's squared norm is larger by D times the noise's variance, on average, and
    differently so for classes of different size. Features are not centred: subtracted from an
    image, a noisy centre would put its noise, which may be longer than the image, into the image's
    direction; in a score noise counts along one direction only.
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
    length is a matter of the temperature that divides the model's cosines. No three rows may lie on
    a line.
    """
    rows, offsets = classifier
    edges = rows[1:] - rows[0]
    step = np.linalg.lstsq(edges, (edges**2).sum(axis=1) / 2, rcond=None)[0]
    spokes = rows - (rows[0] + step)
    radius = np.linalg.norm(spokes, axis=1, keepdims=True)
    bias = -offsets / (radius[:, 0] * temperature)
    return spokes / radius, bias - bias.mean()
