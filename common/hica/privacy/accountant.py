"""Accountant: what any history of Gaussian mechanisms costs together, as (ε, δ).

Every mechanism is the sampled Gaussian mechanism: each unit (a patient, or an image) takes part
with probability q, and Gaussian noise is added to the sum of what those give that do. Neighbouring
data sets differ by one unit, which one holds and the other does not.

Its Rényi divergence of every order α is that of Mironov, Talwar, Zhang, *Rényi Differential
Privacy of the Sampled Gaussian Mechanism* (2019), sections 3.2 and 3.3; for q = 1 it is α/(2σ²).
Divergences of one order add up over a history (Mironov, *Rényi Differential Privacy*, 2017,
proposition 1), and the smallest ε over all orders counts (Balle et al., *Hypothesis Testing
Interpretations and Rényi Differential Privacy*, 2020, theorem 21). Both are computed by Opacus.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import ConfigurationError

ORDERS: tuple[float, ...] = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *range(11, 64),
    *range(64, 128, 8),
    *range(128, 256, 16),
    *range(256, 512, 32),
    *range(512, 1025, 64),
)
"""Orders α. Low ones serve an ε in the hundreds, high ones an ε below 0.1 (at 1024 it can fall to
0.004 for δ = 1e-5); above 1029 Opacus' binomial coefficients overflow."""

NO_NOISE = 1e-3
"""Noise multipliers below this count as none: one release would already cost ε > 500,000."""
MOST_NOISE = 2.0**20
"""Beyond this a single release costs next to nothing, and a budget that still does not hold is
too small for `ORDERS`."""
PRECISION = 1e-3
"""Relative, of a noise multiplier that is searched for."""


@dataclass(frozen=True)
class Charge:
    """Equal releases by the sampled Gaussian mechanism.

    Attributes:
        noise_multiplier: σ, standard deviation of the noise over the L2 sensitivity: the most that
            one unit changes the sum.
        sampling_rate: q, the probability with which a unit takes part in a release (Poisson
            sampling); 1: all do, the plain Gaussian mechanism.
        steps: How many releases.

    Raises:
        ConfigurationError: A value outside its range.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        _check("noise_multiplier", self.noise_multiplier, 0 <= self.noise_multiplier < math.inf)
        _check("sampling_rate", self.sampling_rate, 0 < self.sampling_rate <= 1)
        _check("steps", self.steps, self.steps >= 1)


def epsilon(charges: Iterable[Charge], delta: float) -> float:
    """ε of a whole history at δ: of adding or removing one unit; infinite without noise.

    `charges` are all that was or will be released on the same data, in any order: the result is the
    same to the bit for every order and every way to group equal charges, and 0 for none.

    Raises:
        ConfigurationError: δ is not between 0 and 1.
    """
    _check("delta", delta, 0 < delta < 1)
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.noise_multiplier, charge.sampling_rate] += charge.steps
    if not steps:
        return 0.0
    if min(steps)[0] < NO_NOISE:
        return math.inf
    rdp = np.zeros(len(ORDERS))
    for pair in sorted(steps):
        rdp += _divergences(*pair) * steps[pair]
    return _converted(rdp, delta)


def noise_multiplier(
    epsilon: float,
    delta: float,
    releases: Sequence[tuple[float, int]],
    beside: Sequence[Charge] = (),
) -> float:
    """The least noise σ, the same in some releases, with which they stay within a budget.

    `releases` are (q, n) for every n releases in which a unit takes part with probability q;
    `epsilon` at δ is the budget of these and of what is charged `beside` them, together. σ is the
    smallest to a relative 1e-3, rounded up, so that the budget holds with it.

    Raises:
        ConfigurationError: `beside` alone passes the budget, the budget is smaller than can be
            reached by any noise, or a value is outside its range.
    """
    _check("epsilon", epsilon, 0 < epsilon < math.inf)
    _check("releases", len(releases), len(releases) > 0)
    spent = _epsilon(beside, delta)
    if spent > epsilon:
        raise ConfigurationError(
            f"epsilon = {epsilon:g}: what is charged beside these releases alone costs "
            f"{spent:.4g} at delta = {delta:g}; raise epsilon, or ask for less"
        )

    def cost(multiplier: float) -> float:
        mine = [Charge(multiplier, rate, steps) for rate, steps in releases]
        return _epsilon([*beside, *mine], delta)

    low, high = 1.0, 1.0
    while cost(high) > epsilon:
        if high >= MOST_NOISE:
            raise ConfigurationError(
                f"epsilon = {epsilon:g}: no noise is enough for these releases at delta = "
                f"{delta:g} beside the {spent:.4g} that are spent; raise epsilon or delta"
            )
        low, high = high, 4 * high
    while cost(low) <= epsilon:
        low, high = low / 4, low
    return _root(cost, epsilon, low, high)


def _root(cost: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling function meets `target`, from `low` (above it) and `high` (not above it).

    Every other guess is on the straight line through both ends, which in logarithms nearly hits,
    for one evaluation may take a second.
    """
    straight = True
    while high > low * (1 + PRECISION) ** 1.01:
        share = 0.5
        above, below = cost(low), cost(high)
        if straight and math.isfinite(above) and below > 0:
            share = math.log(above / target) / math.log(above / below)
        straight = not straight or high < low * 1.1
        guess = low * (high / low) ** share
        guess = min(max(guess, low * (1 + PRECISION)), high / (1 + PRECISION))
        low, high = (low, guess) if cost(guess) <= target else (guess, high)
    return high


_epsilon = epsilon
"""For `noise_multiplier`, whose parameter bears the same name."""


@lru_cache(maxsize=4096)
def _divergences(multiplier: float, rate: float) -> NDArray[np.float64]:
    """Rényi divergences of one release for each of `ORDERS`. Takes up to a second once."""
    rdp = _opacus().compute_rdp(q=rate, noise_multiplier=multiplier, steps=1, orders=ORDERS)
    found: NDArray[np.float64] = np.maximum(rdp, 0.0)  # less than 0 by rounding, with much noise
    return found


def _converted(rdp: NDArray[np.float64], delta: float) -> float:
    """The smallest ε over all orders."""
    with warnings.catch_warnings():
        # At an end of `ORDERS` ε is larger than it need be, and still true.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        found, _ = _opacus().get_privacy_spent(orders=ORDERS, rdp=rdp, delta=delta)
    return max(0.0, float(found))


def _opacus() -> Any:
    """Opacus' analysis; imported late, for it loads torch, which takes seconds."""
    from opacus.accountants.analysis import rdp

    return rdp


def _check(name: str, value: float, is_allowed: bool) -> None:
    """Refuse a value outside its range, NaN included."""
    if not is_allowed:
        raise ConfigurationError(f"{name} = {value}: {_RANGES[name]}")


_RANGES = {
    "noise_multiplier": "give a finite number, 0 (no noise) or more",
    "sampling_rate": "give a probability above 0, up to 1",
    "steps": "give a whole number of releases, at least 1",
    "releases": "give at least one (sampling rate, number of releases)",
    "delta": "give a probability between 0 and 1, well below one over the number of patients",
    "epsilon": "give a finite number above 0",
}
