import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from hica_simulations.experiments.audit.bounds import (
    Counts,
    ceilings,
    epsilon_of_mu,
    epsilon_of_negatives,
    epsilon_of_positives,
    gaussian_mu,
    rate_at_least,
    rate_at_most,
)


def counts(true, positives, false, negatives):
    return Counts(np.array(float(true)), positives, np.array(float(false)), negatives)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (7, 10), (10, 10), (37, 900)])
def test_rates_are_bounded_as_scipy_bounds_them(successes, trials):
    exact = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert float(rate_at_least(successes, trials)) == pytest.approx(exact.low, abs=1e-12)
    assert float(rate_at_most(successes, trials)) == pytest.approx(exact.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(3, 20), (19, 20)])
def test_a_lower_bound_is_the_rate_at_which_as_much_is_as_rare_as_the_error(successes, trials):
    """Clopper-Pearson by its definition, found by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        rare = binom.sf(successes - 1, trials, rate) < 0.025
        low, high = (rate, high) if rare else (low, rate)
    assert float(rate_at_least(successes, trials)) == pytest.approx(low, abs=1e-9)


def test_epsilon_is_the_slow_formula_s():
    sure = counts(80, 100, 5, 100)
    low = binomtest(80, 100).proportion_ci(0.95, method="exact").low
    high = binomtest(5, 100).proportion_ci(0.95, method="exact").high
    assert float(epsilon_of_positives(sure, 1e-3)) == pytest.approx(math.log((low - 1e-3) / high))


def test_positives_and_negatives_mirror_each_other():
    assert float(epsilon_of_negatives(counts(70, 100, 3, 100), 1e-5)) == pytest.approx(
        float(epsilon_of_positives(counts(97, 100, 30, 100), 1e-5))
    )


def test_a_guess_proves_nothing():
    blind = counts(50, 100, 50, 100)
    assert float(epsilon_of_positives(blind, 1e-5)) == 0.0
    assert float(epsilon_of_negatives(blind, 1e-5)) == 0.0
    assert epsilon_of_mu(float(gaussian_mu(blind)), 1e-5) == 0.0


@pytest.mark.parametrize("mu", [0.05, 0.3, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_epsilon_of_a_gaussian_gives_its_delta_back(mu, delta):
    epsilon = epsilon_of_mu(mu, delta)
    outputs = np.linspace(-12, mu + 12, 400_001)  # δ(ε) by its definition, as an integral
    gap = np.exp(norm.logpdf(outputs, mu)) - np.exp(epsilon + norm.logpdf(outputs))
    assert np.trapezoid(gap.clip(min=0), outputs) == pytest.approx(delta, rel=1e-3)


def test_the_accountant_s_epsilon_is_not_below_a_gaussian_s():
    from hica.privacy.accountant import Charge, epsilon

    for noise in (0.5, 1.0, 4.0):
        exact = epsilon_of_mu(1 / noise, 1e-5)
        assert exact <= epsilon([Charge(noise)], 1e-5) < 1.3 * exact + 0.1


def test_a_perfect_test_meets_the_ceiling_and_more_trials_raise_it():
    plain, gaussian = ceilings(75, 75, 1e-5)
    perfect = counts(75, 75, 0, 75)
    assert plain == pytest.approx(float(epsilon_of_positives(perfect, 1e-5)))
    assert plain == pytest.approx(math.log((0.025 ** (1 / 75) - 1e-5) / (1 - 0.025 ** (1 / 75))))
    more, more_gaussian = ceilings(750, 750, 1e-5)
    assert more > plain
    assert more_gaussian > gaussian
