"""Regions by what the image tower itself tells apart: normalised cuts of its patches (TokenCut)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from hica.regions.base import Mask, Pixels, components
from hica.ties import first_largest

PatchFeatures = Callable[[Pixels], NDArray[np.float32]]
"""Pixels, uint8 [S, S, 3], to features of the patches in reading order, [N, D] with N = g²."""

Matrix = NDArray[np.float64]

SAME_EIGENVALUE = 1e-8
"""Eigenvalues, of 0 to 2, no further apart are one: rounding moves them by some 1e-15, and turns
the eigenvectors of two that are g apart into each other by as much over g."""
SAME_ENTRY = 1e-6
"""Share of its largest entry below which two entries of an eigenvector are equal. Patches with the
same neighbours have equal entries, wherever in the image they lie."""


@dataclass(frozen=True)
class TokenCut:
    """The parts of highest saliency, one cut after the other.

    A cut is that of Wang et al., "Self-supervised transformers for unsupervised object discovery
    using normalized cut", CVPR 2022: patches are joined where their features are alike, the
    eigenvector of the second smallest eigenvalue is split at its mean, and of the side that holds
    its largest absolute value the connected part around that patch is kept (their section 3). The
    next cut is made of the patches that are left, as by MaskCut (Wang et al., "Cut and learn for
    unsupervised object detection and instance segmentation", CVPR 2023).

    Other than there, the image's mean feature is subtracted first: features of contrastive towers
    lie in a narrow cone, in which every patch is like every other.

    Attributes:
        patches: Features by a tower that does not change while the regions are in use.
        tower: Fingerprint of that tower, which is part of the version.
        threshold: τ, cosine from which two patches are joined.
        weak: ε, affinity of the others; not 0, so that the graph is connected.
    """

    patches: PatchFeatures = field(repr=False)
    tower: str
    threshold: float = 0.2
    weak: float = 1e-5

    @property
    def version(self) -> str:
        """See `RegionMethod.version`."""
        return f"{self!r} v2"

    def __call__(self, pixels: Pixels, _mask: Mask | None, count: int) -> list[Mask]:
        """See `RegionMethod.__call__`."""
        graph = affinities(self.patches(pixels), self.threshold, self.weak)
        grid = round(len(graph) ** 0.5)
        row, column = (np.arange(side) * grid // side for side in pixels.shape[:2])
        rest = np.arange(len(graph))
        regions: list[Mask] = []
        while len(regions) < count and _can_be_cut(graph[np.ix_(rest, rest)]):
            foreground, seed = cut(graph[np.ix_(rest, rest)])
            side = np.zeros(grid * grid, dtype=bool)
            side[rest[foreground]] = True
            parts = (part.ravel() for part in components(side.reshape(grid, grid)))
            found = next(part for part in parts if part[rest[seed]])
            regions.append(found.reshape(grid, grid)[np.ix_(row, column)])
            rest = rest[~found[rest]]
        return regions


def affinities(features: NDArray[np.float32], threshold: float, weak: float) -> Matrix:
    """Graph [N, N] of patches [N, D]: 1 where the cosine of two is at least τ, else `weak` (ε).

    It is symmetric. The mean of the features is subtracted before cosines are taken.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # What is left of equal features is rounding, not a direction.
    rounding = 1e-5 * np.linalg.norm(features, axis=1, keepdims=True).max() + 1e-30
    unit = np.where(length > rounding, centred, 0) / np.maximum(length, rounding)
    return np.where(unit @ unit.T >= threshold, 1.0, weak)


def cut(graph: Matrix) -> tuple[NDArray[np.bool_], int]:
    """Cut a graph in two: (D − W)·y = λ·D·y, second smallest λ, y split at its mean.

    Of affinities W [n, n], D being the diagonal matrix of their row sums; gives the side of the
    seed, bool [n], and the seed, where y is largest. The relaxed normalised cut of Shi and Malik,
    2000, eq. 6. Its ties are broken by a rule, as otherwise rounding, and so the machine, would:

        1. Of all y of the second smallest λ with yᵀ·D·y = 1, which are many where that is repeated,
           the one with the largest entry anywhere is taken; its sign makes that entry positive.
        2. The seed is the node of that entry; of equal ones, the first.
        3. A node at the mean is on the side away from the seed.
    """
    degree = np.diag(graph.sum(axis=1))
    laplacian = degree - graph
    second = eigh(laplacian, degree, eigvals_only=True, subset_by_index=[1, 1])[0]
    around = [second - SAME_EIGENVALUE, second + SAME_EIGENVALUE]
    basis = eigh(laplacian, degree, subset_by_value=around)[1]  # [n, m], m mostly 1
    # With yᵀ·D·y = 1 a combination of the basis has at a node at most the length of its row there.
    seed = int(first_largest(np.linalg.norm(basis, axis=1), SAME_ENTRY))
    vector = basis @ basis[seed]
    return vector > vector.mean() + SAME_ENTRY * vector[seed], seed


def _can_be_cut(graph: Matrix) -> bool:
    """Whether some two nodes are nearer than others; else every cut is as good as another."""
    between = graph[np.triu_indices(len(graph), k=1)]
    return between.size > 0 and bool(between.min() < between.max())
