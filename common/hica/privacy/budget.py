"""Budget: how much noise every release of a private study needs to keep within its ε.

All releases of a site compose. Statistics (centre, clusters, prototypes) are sums over all its
images, each one Gaussian mechanism; training is many steps of the sampled one. The statistics get
the noise with which they alone take up their share of ε, the same at all sites; training gets the
least noise that keeps the whole within ε, which depends on how many units a site has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from hica.privacy.accountant import Charge, noise_multiplier
from hica.privacy.statistics import SENSITIVITY
from hica.secure_sum.forms import threshold_of
from hica.steps.plan import plan
from hica.steps.step import Role, Statistic
from hica.steps.training import Training
from hica.study import Study


@dataclass(frozen=True)
class Rounds:
    """The rounds of a study's step that a site trains by DP-SGD.

    A round has `steps`; in each a unit takes part with probability q, the `sampling_rate`, and as
    many as `expected` do on average, were there as many units as the coordinator is told.
    """

    sampling_rate: float
    steps: int
    rounds: int
    expected: float


def noisy_turns(study: Study) -> int:
    """How many statistics a site releases in a whole run."""
    return sum(isinstance(turn.step, Statistic) for turn in plan(study))


def statistics_multiplier(study: Study) -> float:
    """Noise multiplier σ of every statistic.

    Raises:
        ConfigurationError: No noise is enough for this ε and δ.
    """
    epsilon, delta = _target(study)
    trains = study.privacy.mechanism == "dp-sgd"
    share = 1.0 - study.privacy.training_share if trains else 1.0
    return _least_noise(share * epsilon, delta, ((1.0, noisy_turns(study)),))


def noise_deviation(study: Study, sites: int) -> float:
    """Standard deviation of the noise in every number of a sum over `sites` sites; 0: exact.

    Where noise is shared out, each site adds as much as is needed if only the threshold's number
    of sites stays.
    """
    if not study.privacy.is_private:
        return 0.0
    distributed = study.privacy.noise == "distributed"
    enough = threshold_of(study).threshold(sites) if distributed else 1
    return statistics_multiplier(study) * SENSITIVITY * math.sqrt(sites / enough)


def training_multiplier(study: Study, units: Mapping[Role, int]) -> float:
    """Noise multiplier σ of every step of a site's training, in both stages.

    `units` says how many units there are among the site's images of each role.

    Raises:
        ConfigurationError: No noise is enough for this ε and δ.
    """
    epsilon, delta = _target(study)
    trained = {turn.step for turn in plan(study) if isinstance(turn.step, Training)}
    parts = [rounds_of(step, study, units[step.role]) for step in trained]
    steps = tuple(sorted((each.sampling_rate, each.steps * each.rounds) for each in parts))
    steps = tuple(each for each in steps if each[1])
    statistics = noisy_turns(study)
    beside = (Charge(statistics_multiplier(study), 1.0, statistics),) if statistics else ()
    return _least_noise(epsilon, delta, steps, beside)


def rounds_of(step: Training, study: Study, units: int) -> Rounds:
    """A step's rounds at a site with so many units.

    A batch holds `batches` units on average, until each unit has been drawn `epochs` times.
    """
    if units == 0:
        return Rounds(1.0, 0, 0, 0.0)
    batch, epochs = step.batches(study)
    rate = min(1.0, batch / units)
    return Rounds(rate, max(1, round(epochs / rate)), step.rounds(study), rate * units)


@lru_cache
def _least_noise(
    epsilon: float,
    delta: float,
    releases: tuple[tuple[float, int], ...],
    beside: tuple[Charge, ...] = (),
) -> float:
    """`noise_multiplier`, whose search takes seconds and is asked for in every round."""
    return noise_multiplier(epsilon, delta, releases, beside)


def _target(study: Study) -> tuple[float, float]:
    """ε and δ; `Study` sees to it that a private study has both."""
    epsilon, delta = study.privacy.epsilon, study.privacy.delta
    assert epsilon is not None
    assert delta is not None
    return epsilon, delta
