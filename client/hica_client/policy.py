"""What a study would have the site send, and whether the site's policy allows it."""

from fnmatch import fnmatchcase

from hica.secure_sum.forms import EXAMPLES, LOSS
from hica.steps.arrays import WEIGHTS_ARRAY
from hica.steps.plan import kinds_asked, steps_of
from hica.steps.step import Step
from hica.study import Study
from hica_client.site import PolicySection


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
            "lower the other in the site file"
        )
    if policy.require_secure_aggregation and not study.privacy.secure_aggregation:
        found.append(
            "this site takes part under secure aggregation only (policy.require_secure_aggregation"
            "), which the study does not offer: ask the coordinator to set "
            "privacy.secure_aggregation = true, or change the policy in the site file"
        )
    found += _budget_conflicts(policy, study)
    spared = {step.kind for step in steps_of(study) if step.best_effort}
    forbidden = [
        kind for kind in kinds_asked(study) if kind not in policy.kinds and kind not in spared
    ]
    if forbidden:
        found.append(
            f"the study needs {', '.join(forbidden)}, which policy.kinds does not list: add it in "
            "the site file, or do not take part"
        )
    held_back = sorted(
        {
            name
            for step in steps_of(study)
            for name in arrays_of(step, study)
            if not may_leave(policy, name)
        }
    )
    if held_back:
        found.append(
            f"the study needs the arrays {', '.join(held_back)}, which policy.tensors does not "
            "allow: add them in the site file, or do not take part"
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
            "together may spend, and sets it in the site file"
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


def arrays_of(step: Step, study: Study) -> list[str]:
    """Names of the arrays in a step's answers; `shared.*` as the parts that this study trains."""
    bank = ["shared.bank.classes", "shared.bank.findings"]
    trained = ["shared.tower.*", *(bank if study.alignment.train_text_bank else [])]
    names = []
    for array in step.answers(study):
        names += trained if array.name == WEIGHTS_ARRAY else [array.name]
    summed = study.privacy.secure_aggregation and step.in_sum
    return [*names, *([EXAMPLES, LOSS] if summed else [])]
