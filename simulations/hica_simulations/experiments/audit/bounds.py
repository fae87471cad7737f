"""Bounds: what an attack's successes prove about ε, at 95 % confidence.

A release is (ε, δ)-private only if every test of "was the patient in?" obeys, with true and false
positive rate (TPR, FPR) and their complements,

    TPR ≤ e^ε·FPR + δ    and    TNR ≤ e^ε·FNR + δ        Kairouz et al., 2015, theorem 2.1

so that a test that was seen to do better proves a larger ε (Jagielski et al., 2020). Rates are
replaced by Clopper-Pearson bounds, each at 97.5 %, so that both hold together at 95 %.

A second bound supposes that all tests against the release are as against a Gaussian of some μ
(Nasr et al., 2023, section 5; Dong et al., 2022, for μ-GDP). It is true of the plain Gaussian
mechanism, any number of times, and of whatever is computed from it; it needs far fewer trials.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, norm

Numbers = NDArray[np.float64]

ERROR = 0.025
"""Probability that the confidence limit of one of the two rates in a bound is wrong."""
CAUTIOUS = 1e-4
"""This probability while thresholds are compared: extreme ones, at which few trials decide, look
best by luck."""


class Counts(NamedTuple):
    """What a test said over some trials; numbers, or arrays for many tests at once."""

    true_positives: Numbers
    positives: int  # trials with the patient in
    false_positives: Numbers
    negatives: int  # trials without


def rate_at_least(successes: Numbers, trials: int, error: float = ERROR) -> Numbers:
    """Lower Clopper-Pearson bound of a rate, one-sided; 0 without a success."""
    k = np.asarray(successes, dtype=np.float64)
    return np.where(k > 0, beta.ppf(error, np.maximum(k, 1), trials - k + 1), 0.0)


def rate_at_most(successes: Numbers, trials: int, error: float = ERROR) -> Numbers:
    """Upper Clopper-Pearson bound of a rate, one-sided; 1 without a failure."""
    failures = trials - np.asarray(successes, dtype=np.float64)
    return 1.0 - rate_at_least(failures, trials, error)


def epsilon_of_positives(counts: Counts, delta: float, error: float = ERROR) -> Numbers:
    """Largest ε that TPR ≤ e^ε·FPR + δ refutes; 0 where it refutes none."""
    hits = rate_at_least(counts.true_positives, counts.positives, error)
    false = rate_at_most(counts.false_positives, counts.negatives, error)
    return _log_ratio(hits - delta, false)


def epsilon_of_negatives(counts: Counts, delta: float, error: float = ERROR) -> Numbers:
    """Largest ε that TNR ≤ e^ε·FNR + δ refutes; 0 where it refutes none."""
    rejected = rate_at_least(counts.negatives - counts.false_positives, counts.negatives, error)
    missed = rate_at_most(counts.positives - counts.true_positives, counts.positives, error)
    return _log_ratio(rejected - delta, missed)


def gaussian_mu(counts: Counts, error: float = ERROR) -> Numbers:
    """Largest μ that is refuted: -Φ⁻¹(FPR) - Φ⁻¹(FNR), of the rates' upper bounds; 0 at least."""
    false = rate_at_most(counts.false_positives, counts.negatives, error)
    missed = rate_at_most(counts.positives - counts.true_positives, counts.positives, error)
    return np.asarray(np.maximum(-norm.ppf(false) - norm.ppf(missed), 0.0))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """ε at δ of a Gaussian mechanism whose outputs lie μ standard deviations apart.

        δ(ε) = Φ(-ε/μ + μ/2) - e^ε·Φ(-ε/μ - μ/2)    Balle & Wang, 2018; Dong et al., corollary 1

    Returns:
        The ε ≥ 0 at which δ(ε) is `delta`; 0 where δ(0) is below it.
    """
    if mu <= 0:
        return 0.0

    def excess(epsilon: float) -> float:
        second = math.exp(min(epsilon + norm.logcdf(-epsilon / mu - mu / 2), 0.0))
        return float(norm.cdf(-epsilon / mu + mu / 2) - second - delta)

    if excess(0.0) <= 0:
        return 0.0
    high = mu * mu / 2 - mu * float(norm.ppf(delta)) + 1.0  # there the first term alone is below δ
    return float(brentq(excess, 0.0, high, xtol=1e-9))


def ceilings(positives: int, negatives: int, delta: float) -> tuple[float, float]:
    """The most that so many trials can prove, by a test that never errs: both bounds."""
    perfect = Counts(np.array(positives), positives, np.array(0), negatives)
    proofs = (epsilon_of_positives, epsilon_of_negatives)
    plain = max(float(proof(perfect, delta)) for proof in proofs)
    return plain, epsilon_of_mu(float(gaussian_mu(perfect)), delta)


def _log_ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    """ln(numerator / denominator), 0 where that is less or not defined; denominators are > 0."""
    return np.asarray(np.log(np.maximum(numerator, denominator) / denominator))
