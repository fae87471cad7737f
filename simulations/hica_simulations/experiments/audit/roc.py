"""ROC: what scores tell about membership, and what they prove about ε.

Trials are cut in two: thresholds are chosen on the first half, and all that is reported is counted
on the second, so that a threshold that was lucky proves nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_curve

from hica_simulations.experiments.audit.bounds import (
    CAUTIOUS,
    ERROR,
    Counts,
    ceilings,
    epsilon_of_mu,
    epsilon_of_negatives,
    epsilon_of_positives,
    gaussian_mu,
    rate_at_least,
    rate_at_most,
)

Scores = NDArray[np.float64]
Inside = NDArray[np.bool_]

FALSE_POSITIVES = 0.01
"""The rate at which TPR is reported (Carlini et al., 2022, section IV)."""
THRESHOLDS = 512
"""Quantiles of the first half's scores among which a threshold is chosen."""


@dataclass(frozen=True)
class Verdict:
    """How well one attack did.

    Attributes:
        auc: Area under the ROC curve.
        tpr: Share of members found at a false positive rate of 1 % at most.
        tpr_low, tpr_high: The 95 % Clopper-Pearson interval of `tpr`.
        bound, gaussian_bound: ε is at least this, at 95 % confidence; if the mechanism is Gaussian.
        ceiling, gaussian_ceiling: The largest bounds that so many trials could give.
        trials: In the second half.
    """

    auc: float
    tpr: float
    tpr_low: float
    tpr_high: float
    bound: float
    gaussian_bound: float
    ceiling: float
    gaussian_ceiling: float
    trials: int


def verdict(scores: Scores, inside: Inside, delta: float) -> Verdict:
    """Judge an attack by its scores [n], higher for members, and who was in [n].

    The bounds on ε are for δ of the claim, `delta`.

    Raises:
        ValueError: A half has no member, or no other.
    """
    half = len(scores) // 2
    for part in (inside[:half], inside[half:]):
        if part.all() or not part.any():
            raise ValueError("each half needs trials with the patient and without")
    candidates = np.quantile(scores[:half], np.linspace(0, 1, THRESHOLDS))
    first = _counts(scores[:half], inside[:half], candidates)
    second, members = scores[half:], inside[half:]
    proofs = (epsilon_of_positives, epsilon_of_negatives)
    values = [_cautious(partial(proof, first, delta)) for proof in proofs]
    side = int(values[1].max() > values[0].max())
    chosen = candidates[[values[side].argmax()]]
    bound = float(proofs[side](_counts(second, members, chosen), delta)[0])
    best = candidates[[_cautious(partial(gaussian_mu, first)).argmax()]]
    mu = float(gaussian_mu(_counts(second, members, best))[0])
    positives, negatives = int(members.sum()), int((~members).sum())
    found = round(tpr_at(second, members, FALSE_POSITIVES) * positives)
    ceiling, gaussian_ceiling = ceilings(positives, negatives, delta)
    return Verdict(
        auc=auc(second, members),
        tpr=found / positives,
        tpr_low=float(rate_at_least(np.array(found), positives)),
        tpr_high=float(rate_at_most(np.array(found), positives)),
        bound=bound,
        gaussian_bound=epsilon_of_mu(mu, delta),
        ceiling=ceiling,
        gaussian_ceiling=gaussian_ceiling,
        trials=len(second),
    )


def auc(scores: Scores, inside: Inside) -> float:
    """Probability that a member scores higher than another, ties counted half (Mann-Whitney)."""
    members = int(inside.sum())
    ranks = float(rankdata(scores)[inside].sum()) - members * (members + 1) / 2
    return ranks / (members * (len(scores) - members))


def roc(scores: Scores, inside: Inside) -> tuple[Scores, Scores]:
    """FPR and TPR, ascending, at every threshold from above all scores to below all."""
    false, true, _ = roc_curve(inside, scores, drop_intermediate=False)
    return false, true


def tpr_at(scores: Scores, inside: Inside, most: float) -> float:
    """The largest TPR at an FPR of `most` or less."""
    false, true = roc(scores, inside)
    return float(true[false <= most].max())


def likelihood_ratio(scores: Scores, inside: Inside) -> Scores:
    """LiRA: ln of how much likelier a score is with the patient than without.

    Normal distributions are fitted to the first half, whose models are the shadow models of
    Carlini et al., 2022 (section V: online attack, one target).
    """
    half = len(scores) // 2
    known, members = scores[:half], inside[:half]
    with_, without = known[members], known[~members]
    spread = 1e-12 + 1e-6 * float(np.abs(known).max())
    return np.asarray(
        norm.logpdf(scores, with_.mean(), with_.std() + spread)
        - norm.logpdf(scores, without.mean(), without.std() + spread)
    )


def _cautious(bounds: Callable[[float], Scores]) -> Scores:
    """What each threshold would prove, cautiously; where that is nothing, less cautiously."""
    cautious = bounds(CAUTIOUS)
    return cautious if cautious.any() else bounds(ERROR)


def _counts(scores: Scores, inside: Inside, thresholds: Scores) -> Counts:
    """How many members, and how many others, score at each threshold or above."""
    members, others = np.sort(scores[inside]), np.sort(scores[~inside])
    return Counts(
        (len(members) - np.searchsorted(members, thresholds)).astype(np.float64),
        len(members),
        (len(others) - np.searchsorted(others, thresholds)).astype(np.float64),
        len(others),
    )
