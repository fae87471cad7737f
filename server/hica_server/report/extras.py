"""What only a simulation can add to a report: pictures, which never leave a real site."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Embedding(NamedTuple):
    """Image features laid out in the plane."""

    points: NDArray[np.float32]
    """[n, 2]."""
    labels: list[int]
    """Class of each image [n], -1 where unlabelled."""
    sites: list[str]
    """Site of each image [n]."""


@dataclass(frozen=True)
class Example:
    """One held-out image and what the model saw in it."""

    image: Pixels
    """[S, S, 3]."""
    region_masks: NDArray[np.bool_]
    """[k, S, S], k may be 0."""
    similarity: NDArray[np.float32]
    """Cosine of each patch to the text of the predicted class [g, g]."""
    label: str
    prediction: str
    probability: float
    """Of the predicted class."""
    site: str


class Cluster(NamedTuple):
    """Some images of one pseudo-label."""

    number: int
    images: list[Pixels]
    """[S, S, 3] each."""
    size: int
    """Images in the whole cluster."""


@dataclass(frozen=True)
class Extras:
    """Optional pictures; a section without them is left out of the report."""

    embedding: Embedding | None = None
    examples: list[Example] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)
