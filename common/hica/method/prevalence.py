"""Prevalence: a site's own intercepts, after the federation's.

Shots are drawn evenly over the classes, patients do not come evenly: a model that learnt from shots
calls too many patients ill where few are. What a hospital knows of its patients' classes puts this
right, with images whose labels nobody needs: intercepts b under which the mean prediction over n
images of scores s_i is the known share π of each class,

    1/n Σ_i softmax(s_i + b) = π.

Saerens et al. (Neural Computation 14, 2002, eq. 2.9) estimate an unknown π from such a mean; here π
is given, and b is not held to log π plus a constant: how far apart the scores of an overconfident
model lie does not matter. The b sought minimises 1/n Σ_i logsumexp(s_i + b) − π·b, which is convex.

Where nobody knows the prevalence, the shots still say something: they are drawn evenly, so a class
of which a site has fewer than of others ran short, and is rare there. Even shots say nothing.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from hica.method.pseudo_labels import Vector

GRADIENT = 1e-9
"""Largest difference from π at which the search ends."""


def of_the_rest(prevalence: ArrayLike, images: int, shots: ArrayLike) -> Vector:
    """Shares [C] of the classes among a site's training images without the shots.

    Shots were taken out evenly, so that what is rare is rarer still in the rest. A share lower than
    half an image, as an estimated prevalence may leave, counts as half an image. `prevalence` [C],
    of all training images, adds up to 1; `images`, their number, is larger than that of the shots
    [C], counted per class.
    """
    taken = np.asarray(shots, np.float64)
    left = np.maximum(np.asarray(prevalence, np.float64) * images - taken, 0.5)
    shares: Vector = left / left.sum()
    return shares


def matching_intercepts(scores: NDArray[np.floating], shares: Vector) -> Vector:
    """Intercepts [C], adding up to 0, that make the mean prediction the given shares.

    `scores` over temperature are [n, C] with n > 0; shares [C] are above 0 and add up to 1.
    """
    rows = scores.astype(np.float64)

    def objective(bias: Vector) -> tuple[float, Vector]:
        logits = rows + bias
        value = logsumexp(logits, axis=1).mean() - shares @ bias
        gradient: Vector = softmax(logits, axis=1).mean(axis=0) - shares
        return float(value), gradient

    # Starts where a confident classifier would be right already: each class above its mean score.
    start = np.log(shares) - rows.mean(axis=0)
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": GRADIENT})
    bias: Vector = found.x - found.x.mean()
    return bias


def shots_intercepts(shots: ArrayLike, seen: ArrayLike) -> Vector:
    """Intercepts [C] of the classes from a site's shots, counted per class; 0 where they are even.

    log (n_c + 1), less the largest: the share that is to be expected of a class of which n_c were
    found, all shares being as likely before (Laplace's rule of succession). Classes [C] bool that
    no site has `seen` have no shots anywhere, and none is expected to be rare for that.
    """
    counts = np.asarray(shots, np.float64)
    seen = np.asarray(seen, bool)
    found: Vector = np.where(seen, np.log(counts + 1) - np.log(counts.max(initial=0) + 1), 0.0)
    return found
