"""What a study would have the site send, and whether the site's policy allows it."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hica.secure_sum.forms import EXAMPLES, LOSS, SUMMED
from hica.study import Study
from hica.wire.messages import Kind
from hica_client.site import PolicySection

ARRAYS: dict[Kind, tuple[str, ...]] = {
    Kind.CAPABILITIES: (),
    Kind.KEYS: (),
    Kind.SHARES: (),
    Kind.SURVIVORS: (),
    Kind.UNMASK: (),
    Kind.MOMENTS: ("sums", "counts", "squares"),
    Kind.CLUSTERS: ("sums", "counts"),
    Kind.PRETRAIN: ("shared.*",),
    Kind.PROTOTYPES: ("sums", "counts"),
    Kind.ALIGN: ("shared.*",),
    Kind.CALIBRATE: ("gradient", "hessian"),
    Kind.EVALUATE: (),
}
"""Names of the arrays in the answer to each kind; `shared.*` are trained weights."""

SECURE = (Kind.KEYS, Kind.SHARES, Kind.SURVIVORS, Kind.UNMASK)
"""What sites say to each other so that only sums of their answers can be seen."""


def kinds_of(study: Study) -> list[Kind]:
    """The kinds of requests a run of this study makes, in the order of their first use."""
    alignment, trains = study.alignment, study.privacy.mechanism != "prototypes"
    centre = [Kind.MOMENTS] if alignment.centring != "none" and trains else []
    clusters = [Kind.CLUSTERS, Kind.PRETRAIN] if study.pretraining.rounds else []
    prototypes = [Kind.PROTOTYPES] if alignment.starts_at_means else []
    calibrate = [Kind.CALIBRATE] if study.calibration.rounds else []
    secure = SECURE if study.privacy.secure_aggregation else ()
    return [
        Kind.CAPABILITIES,
        *secure,
        *centre,
        Kind.EVALUATE,
        *clusters,
        *prototypes,
        *([Kind.ALIGN] if trains else []),
        *calibrate,
    ]


def may_leave(policy: PolicySection, name: str) -> bool:
    """Whether an array of this name may be in an answer."""
    return any(fnmatchcase(name, pattern) for pattern in policy.tensors)


def conflicts(policy: PolicySection, study: Study) -> list[str]:
    """What of the study the policy forbids, each with its remedy; empty where they agree."""
    found = []
    fewest = study.federation.min_count
    if fewest < policy.min_count:
        found.append(
            f"the study shows counts of {fewest} patients (federation.min_count), this site's "
            f"policy.min_count is {policy.min_count}: ask the coordinator to raise the one, or "
            "lower the other in site.toml"
        )
    if policy.require_secure_aggregation and not study.privacy.secure_aggregation:
        found.append(
            "this site takes part under secure aggregation only (policy.require_secure_aggregation"
            "), which the study does not offer: ask the coordinator to set "
            "privacy.secure_aggregation = true, or change the policy in site.toml"
        )
    found += _budget_conflicts(policy, study)
    kinds = kinds_of(study)
    forbidden = [kind.value for kind in kinds if kind not in policy.kinds]
    if forbidden:
        found.append(
            f"the study needs {', '.join(forbidden)}, which policy.kinds does not list: add it in "
            "site.toml, or do not take part"
        )
    held_back = sorted(
        {name for kind in kinds for name in _arrays(kind, study) if not may_leave(policy, name)}
    )
    if held_back:
        found.append(
            f"the study needs the arrays {', '.join(held_back)}, which policy.tensors does not "
            "allow: add them in site.toml, or do not take part"
        )
    return found


def _budget_conflicts(policy: PolicySection, study: Study) -> list[str]:
    """Why a private study would spend more than the site has decided."""
    epsilon, delta = study.privacy.epsilon, study.privacy.delta
    if not study.privacy.is_private or epsilon is None or delta is None:
        return []
    if policy.max_epsilon is None:
        return [
            f"the study spends ε = {epsilon:g} of the privacy of this site's patients, and "
            "policy.max_epsilon is not set: whoever answers for them decides what all studies "
            "together may spend, and sets it in site.toml"
        ]
    found = []
    if epsilon > policy.max_epsilon:
        found.append(
            f"the study spends ε = {epsilon:g} (privacy.epsilon), this site's policy.max_epsilon "
            f"is {policy.max_epsilon:g}: ask the coordinator to lower the one, or do not take part"
        )
    if delta > policy.delta:
        found.append(
            f"the study's δ = {delta:g} (privacy.delta) is above this site's policy.delta = "
            f"{policy.delta:g}: ask the coordinator to lower the one, or do not take part"
        )
    return found


def _arrays(kind: Kind, study: Study) -> list[str]:
    """`ARRAYS` of a kind; `shared.*` as the parts that this study trains."""
    summed = [EXAMPLES, LOSS] if study.privacy.secure_aggregation and kind in SUMMED else []
    bank = ["shared.bank.classes", "shared.bank.findings"]
    trained = ["shared.tower.*", *(bank if study.alignment.train_text_bank else [])]
    own = [name for name in ARRAYS[kind] if name != "squares" or study.alignment.scaling != "none"]
    parts = [part for name in own for part in (trained if name == "shared.*" else [name])]
    return [*parts, *summed]
