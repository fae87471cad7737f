"""After training: one intercept per class, found by federated Newton steps.

Scores are cosines to class texts and know no intercept. Averaging weights moves the scores of all
images of a class together, and the average then prefers some classes that no site preferred. The
ridge-penalised intercepts b of multinomial regression with the scores as fixed offsets,

    minimise  1/n Σ_i −log softmax(s_i + b)[y_i] + ρ‖b‖²        (Platt 1999 for two classes)

put this right. The objective is a sum over images, so Newton's method on the sites' sums of
gradients and Hessians takes the very steps it would take on pooled scores.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hica.method.pseudo_labels import Labels, Matrix, Vector

LONGEST_GRADIENT = 1.001 * math.sqrt(2)
"""L2 norm of an image's p − 1_y: two corners of the simplex are no further apart. A secure sum is
rounded."""


class Curvature(NamedTuple):
    """What a site sends: Σ of its images' gradients [C] and Hessians [C, C], and their number."""

    gradient: Vector
    hessian: Matrix
    images: int


def curvature(scores: NDArray[np.floating], labels: Labels, bias: Vector) -> Curvature:
    """A site's part of one Newton step at intercepts [C].

    Gradient Σ (p − 1_y) and Hessian Σ (diag p − p pᵀ), p = softmax(s + b), without the ridge, of
    scores over temperature [n, C] and class indices [n].
    """
    logits = scores.astype(np.float64) + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    target = np.eye(len(bias))[labels]
    return Curvature((p - target).sum(axis=0), np.diag(p.sum(axis=0)) - p.T @ p, len(labels))


def newton_step(bias: Vector, parts: list[Curvature], ridge: float) -> Vector:
    """The coordinator's part: b − (H/n + 2ρI)⁻¹ (g/n + 2ρb), ρ > 0, from at least one image.

    The ridge makes the Hessian positive definite, though softmax does not see a constant added to
    all intercepts, and holds back intercepts that few images speak for.
    """
    images = sum(part.images for part in parts)
    gradient = np.sum([part.gradient for part in parts], axis=0) / images + 2 * ridge * bias
    hessian = np.sum([part.hessian for part in parts], axis=0) / images
    step: Vector = np.linalg.solve(hessian + 2 * ridge * np.eye(len(bias)), gradient)
    return bias - step


def largest_intercept(steps: int, ridge: float) -> float:
    """The most that an intercept can come to in Newton steps from zero.

    A step is b' = (H/n + 2ρI)⁻¹ (H/n·b − g/n). H has no negative eigenvalue, so the first term is
    no longer than b, and the second no longer than |g/n| / 2ρ.
    """
    return steps * LONGEST_GRADIENT / (2 * ridge)
