"""Ablation: the recipe without each of its parts, and with each part it could have.

The three terms and stage 1 are the paper's Table II; the rest are parts of our recipe.
"""

from collections.abc import Mapping

from hica.study import Changes
from hica_simulations.experiments.tables.cells import OURS
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.scenario import Scenario

TERMS: dict[str, Changes] = {
    "without the local term": {"alignment": {"local_weight": 0}},
    "without the cross-class term": {"alignment": {"cross_weight": 0}},
    "global term only": {"alignment": {"local_weight": 0, "cross_weight": 0}},
}
SCALED = {"alignment": {"scaling": "global"}}
RECIPE: dict[str, Changes] = {
    "features scaled": SCALED,
    "three layers": {"model": {"layers": 3}},
    "three layers and scaled": {"model": {"layers": 3}, **SCALED},
    "the same on coarse maps": {"model": {"layers": 3, "maps": "coarse"}, **SCALED},
    "last block alone": {"model": {"train": "last-1"}},
    "each site's own centre": {"alignment": {"centring": "site"}},
    "one view": {"alignment": {"views": 1}},
    "no mirror image at the test": {"alignment": {"flip_at_test": False}},
    "frozen tower and adapter": {
        "model": {"train": "adapter"},
        "alignment": {"learning_rate": 1e-3},
    },
    "bank starts at the texts": {"alignment": {"bank_start": "text"}},
    "bank starts at class means": {"alignment": {"bank_start": "means"}},
    "bank held to its start": {"alignment": {"text_pull": 0.1}},
    "texts not trained": {"alignment": {"train_text_bank": False}},
    "no intercepts": {"calibration": {"rounds": 0}},
    "regions in the prediction": {"alignment": {"region_blend": 0.25}},
    "labels spread over unlabelled images": {"alignment": {"label_propagation": True}},
    "view of the largest region": {"alignment": {"region_view": True}},
    "contrast within the batch": {"alignment": {"contrast": "batch"}},
}


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """The recipe, and every change of it."""
    with_stage_1 = scenario.study.pretraining.rounds > 0
    name, rounds = ("without stage 1", 0) if with_stage_1 else ("with stage 1", 2)
    stage: dict[str, Changes] = {name: {"pretraining": {"rounds": rounds}}}
    return {OURS: Variant()} | {
        name: Variant(changes) for name, changes in (TERMS | stage | RECIPE).items()
    }


TABLE = Comparison(
    title="What each part of the recipe does",
    reference=OURS,
    variants=variants,
)
cells, write = TABLE.cells, TABLE.write
