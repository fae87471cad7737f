"""Settings: the ways in which a study can be run that the audit compares.

Each takes the study as it is and changes its `[privacy]`, and what privacy does not allow.
"""

from dataclasses import dataclass, replace
from typing import Literal

from hica.privacy.accountant import Charge, epsilon
from hica.privacy.budget import Rounds, rounds_of, statistics_multiplier, training_multiplier
from hica.steps.alignment import ALIGNMENT
from hica.study import Study, changed

EPSILONS = (1.0, 3.0, 8.0)
DELTA = 1e-5
"""δ of the claims where the study has none."""
CONTROL = 0.1
"""What is left of the noise in the control: a mechanism that is broken on purpose."""

PLAIN = {
    "privacy": {"mechanism": "none", "secure_aggregation": False, "noise": "local"},
    "pretraining": {"rounds": 0},
    "calibration": {"rounds": 0},
}
PROTOTYPES = {
    "alignment": {"train_text_bank": True, "bank_start": "prototypes"},
    "privacy": {"mechanism": "prototypes"},
}
DP_SGD = {"privacy": {"mechanism": "dp-sgd"}}

Seen = Literal["prototypes", "update"]


@dataclass(frozen=True)
class Setting:
    """A way to run a study.

    Attributes:
        name: For files.
        title: For people.
        statistics: Study under which class sums leave, nothing else released beside them.
        training: Study under which trained weights leave.
        delta: δ of the claims.
        summed: Whether only the sum over sites is seen.
        noise_scale: What of the noise is added; 1 but for the control.
    """

    name: str
    title: str
    statistics: Study
    training: Study
    delta: float
    summed: bool = False
    noise_scale: float = 1.0

    @property
    def is_private(self) -> bool:
        """Whether noise is added."""
        return self.training.privacy.is_private

    def claimed(self, seen: Seen, units: int) -> float | None:
        """ε, by the accountant, of exactly what the attacker sees; None without noise.

        That is one release of class sums, or the updates of all alignment rounds; `units` are the
        patients or images at the site, as the study counts them.
        """
        if not self.is_private:
            return None
        if seen == "prototypes":
            return epsilon([Charge(statistics_multiplier(self.statistics))], self.delta)
        steps = self.steps(units)
        charge = Charge(self.multiplier(units), steps.sampling_rate, steps.steps * steps.rounds)
        return epsilon([charge], self.delta)

    def is_gaussian(self, seen: Seen, units: int) -> bool:
        """Whether what is seen is a plain Gaussian mechanism: all take part in every release."""
        sampled = seen == "update" and self.steps(units).sampling_rate < 1.0
        return self.is_private and not sampled

    def steps(self, units: int) -> Rounds:
        """Sampling rate, steps and rounds of private training."""
        return rounds_of(ALIGNMENT, self.training, units)

    def multiplier(self, units: int) -> float:
        """Noise multiplier of private training, as the study claims it."""
        return training_multiplier(self.training, {"unlabelled": 0, "labelled": units})


def settings_of(study: Study) -> list[Setting]:
    """No privacy, secure aggregation alone, DP at every ε, and the control.

    The control is DP at the first ε with a tenth of its noise. The study's own `[privacy]` gives δ,
    the clipping and the unit.
    """
    delta = study.privacy.delta or DELTA
    open_ = changed(study, PLAIN)
    private = [_private(study, epsilon, delta) for epsilon in EPSILONS]
    return [
        Setting("none", "no privacy", open_, open_, delta),
        Setting("secure", "secure aggregation only", open_, open_, delta, summed=True),
        *private,
        control_of(private[0]),
    ]


def control_of(setting: Setting) -> Setting:
    """`setting` with its claim and a tenth of its noise: what the audit has to catch."""
    title = f"control: {setting.title}, noise / {1 / CONTROL:.0f}"
    return replace(setting, name="control", title=title, noise_scale=CONTROL)


def _private(study: Study, epsilon: float, delta: float) -> Setting:
    """DP at one ε: class sums by the mechanism `prototypes`, training by `dp-sgd`."""
    budget = {"privacy": {"epsilon": epsilon, "delta": delta}}
    centring = study.alignment.centring
    allowed_centring = "global" if centring == "site" else centring
    allowed = {"alignment": {"contrast": "bank", "centring": allowed_centring}}
    return Setting(
        f"dp-{epsilon:g}",
        f"DP, ε = {epsilon:g}",
        changed(study, PLAIN, budget, allowed, PROTOTYPES),
        changed(study, PLAIN, budget, allowed, DP_SGD),
        delta,
    )
