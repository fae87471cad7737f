"""Sensitivity: weights, margin and temperature of the objective, one at a time."""

from collections.abc import Mapping

from hica_simulations.experiments.tables.cells import OURS
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.scenario import Scenario

VALUES: dict[str, tuple[str, tuple[float, ...]]] = {
    "local_weight": ("λ1", (0.0, 0.25, 1.0, 2.0)),
    "cross_weight": ("λ2", (0.0, 0.25, 1.0, 2.0)),
    "margin": ("δ", (0.1, 0.4)),
    "temperature": ("τ", (0.05, 0.2)),
}
"""Key of `[alignment]` → its symbol (`hica.method.objective`) and the values that are tried."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """The study's own values; every other one."""
    own = scenario.study.alignment
    changes = {
        f"{symbol} = {value:g}": Variant({"alignment": {key: value}})
        for key, (symbol, values) in VALUES.items()
        for value in values
        if value != getattr(own, key)
    }
    return {OURS: Variant(), **changes}


TABLE = Comparison(
    title="How much the objective's settings matter",
    reference=OURS,
    variants=variants,
)
cells, write = TABLE.cells, TABLE.write
