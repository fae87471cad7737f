"""Main table: our method beside every baseline, over studies and shots."""

from __future__ import annotations

from collections.abc import Mapping

from hica_server.console import METHODS
from hica_simulations.baselines.registry import NAMES
from hica_simulations.baselines.shots import runnable
from hica_simulations.scenario import Scenario
from hica_simulations.tables.cells import LOCAL, OURS, POOLED
from hica_simulations.tables.comparison import Comparison, Variant

SLOW = ("clip_lora",)
"""Runs the whole tower in every step."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Our method, alone and pooled, and the baselines; a name is what `--methods` takes."""
    names = (OURS, LOCAL, POOLED, *runnable(scenario.study, NAMES))
    return {name: Variant(method=name) for name in names}


TABLE = Comparison(
    title="Methods over shots",
    reference=OURS,
    variants=variants,
    metrics={
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced",
        "auroc": "AUROC",
        "ece": "ECE",
        "worst_auroc": "worst site's AUROC",
    },
    compared=("accuracy", "auroc"),
    rarely=frozenset({LOCAL, POOLED, *SLOW}),
)
TITLES = METHODS
cells, write = TABLE.cells, TABLE.write
