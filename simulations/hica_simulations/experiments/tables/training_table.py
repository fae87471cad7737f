"""Training: what it gives to train the whole tower, and for longer, than the recipe does.

The recipe is chosen to run on two CPU cores: it trains the last blocks on a few cached views. This
table is meant for a GPU (`--device auto`), and stands beside the recipe on the same device.
"""

from collections.abc import Mapping
from typing import Any

from hica_simulations.experiments.tables.cells import OURS
from hica_simulations.experiments.tables.comparison import Comparison, Figure, Variant
from hica_simulations.experiments.tables.efficiency import training_seconds
from hica_simulations.place import Place
from hica_simulations.scenario import Scenario

WHOLE = {"model": {"train": "full"}}
STAGE_1 = {"pretraining": {"rounds": 30, "max_images": 1000}}
"""On all images of a site, where the recipe's own stage 1 takes two rounds on a hundred."""
LONGER = {"alignment": {"rounds": 24}}
"""Three times the recipe's."""


def variants(_: Scenario) -> Mapping[str, Variant]:
    """The recipe, a long stage 1 before it, the whole tower, and that for longer."""
    return {
        OURS: Variant(),
        "stage 1 of 30 rounds": Variant(STAGE_1),
        "whole tower": Variant(WHOLE),
        "whole tower, 24 rounds": Variant({**WHOLE, **LONGER}),
        "whole tower, stage 1 of 30 rounds": Variant({**WHOLE, **STAGE_1}),
    }


def measured(_: Scenario, __: Place, result: Mapping[str, Any]) -> dict[str, float]:
    """A further column of a finished federation."""
    return {"training_seconds": training_seconds(result)}


TABLE = Comparison(
    title="What more training gives",
    reference=OURS,
    variants=variants,
    figures={"training_seconds": Figure("training, s")},
    measure=measured,
    remark=(
        "Training is the wall clock of all rounds of both stages; runs that share a device slow "
        "each other, so that only those of `--jobs 1` tell what one would take."
    ),
)
cells, write = TABLE.cells, TABLE.write
