"""What a study would have the site send, and whether the site's policy allows it."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hica.messages import Kind
from hica.study import Study
from hica_client.site import PolicySection

ARRAYS: dict[Kind, tuple[str, ...]] = {
    Kind.CAPABILITIES: (),
    Kind.MOMENTS: ("sums", "counts"),
    Kind.CLUSTERS: ("sums", "counts"),
    Kind.PRETRAIN: ("shared.*",),
    Kind.PROTOTYPES: ("sums", "counts"),
    Kind.ALIGN: ("shared.*",),
    Kind.CALIBRATE: ("gradient", "hessian"),
    Kind.EVALUATE: (),
}
"""Names of the arrays in the answer to each kind; `shared.*` are trained weights."""


def kinds_of(study: Study) -> list[Kind]:
    """The kinds of requests a run of this study makes, in the order of their first use."""
    alignment = study.alignment
    centre = [Kind.MOMENTS] if alignment.centring != "none" else []
    clusters = [Kind.CLUSTERS, Kind.PRETRAIN] if study.pretraining.rounds else []
    blended = alignment.train_text_bank and alignment.bank_start == "prototypes"
    prototypes = [Kind.PROTOTYPES] if blended else []
    calibrate = [Kind.CALIBRATE] if study.calibration.rounds else []
    return [
        Kind.CAPABILITIES,
        *centre,
        Kind.EVALUATE,
        *clusters,
        *prototypes,
        Kind.ALIGN,
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


def _arrays(kind: Kind, study: Study) -> list[str]:
    """`ARRAYS` of a kind; `shared.*` as the parts that this study trains."""
    bank = ["shared.bank.classes", "shared.bank.findings"]
    trained = ["shared.tower.*", *(bank if study.alignment.train_text_bank else [])]
    return [part for name in ARRAYS[kind] for part in (trained if name == "shared.*" else [name])]
