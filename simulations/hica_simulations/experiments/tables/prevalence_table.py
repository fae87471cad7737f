"""Known prevalence: what it is worth to tell each site how common its classes are.

Few-shot episodes are drawn evenly over the classes and patients do not come evenly, so a model may
rank well and still call too many images ill. A hospital knows the shares of its classes without
knowing which image is which; ours and the baselines use them alike (`hica.method.prevalence`).
"""

from collections.abc import Mapping

from hica_simulations.experiments.baselines.shots import runnable
from hica_simulations.experiments.tables.cells import OURS
from hica_simulations.experiments.tables.comparison import METRICS, Comparison, Variant
from hica_simulations.scenario import Scenario

KNOWN = {"simulation": {"prevalence": "known"}}
BASELINES = ("linear_probe", "fed_avg", "cnn")


def known(method: str) -> str:
    """The line of a method whose sites know their prevalence."""
    return f"{method}: prevalence known"


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Ours and the strongest baselines, each without and with the prevalence."""
    methods = (OURS, *runnable(scenario.study, BASELINES))
    plain = {name: Variant(method=name) for name in methods}
    return plain | {known(name): Variant(KNOWN, name) for name in methods}


TABLE = Comparison(
    title="Known prevalence",
    reference=OURS,
    variants=variants,
    metrics={**METRICS, "ece": "ECE"},
    against={known(name): known(OURS) for name in BASELINES},
    remark=(
        "Prevalence is the shares of the classes among a site's training images; no test image "
        "and no label of a single image beyond the shots is used."
    ),
)
cells, write = TABLE.cells, TABLE.write
