"""Regions: where the regional term looks, how many regions, and what is left of damaged masks.

`sam`, `hf-sam` and `unet` need weights. They are lines only where the study names
`regions.checkpoint`, and only those it can be meant for: the study's own method where it is one of
them, else all three, of which `--methods` picks the one that fits. An image without a mask has no
regions, so `masks` says little of studies whose manifests have none.
"""

from collections.abc import Mapping

from hica.study import NO_CHANGES, merged
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.scenario import Scenario

OWN = "own regions"
BLENDED = "regions in the prediction"
BLEND = {"alignment": {"region_blend": 0.25}}
METHODS = ("masks", "otsu", "superpixels", "grid", "token-cut")
WITH_WEIGHTS = ("sam", "hf-sam", "unet")
COUNT = 4
COUNTS = (1, 2, 8)
DAMAGES = ("dilated", "shifted", "replaced", "none")


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Methods, numbers and, where the study uses masks, damage; whole images decide, or regions."""
    regions = scenario.study.regions
    own, count = regions.method, regions.count
    methods = [*METHODS]
    if regions.checkpoint is not None:
        methods += [name for name in WITH_WEIGHTS if own in (name, *METHODS)]
    found = {OWN: NO_CHANGES}
    for name in methods:
        if (name, COUNT) != (own, count):
            found[name] = {"regions": {"method": name, "count": COUNT}}
    for number in COUNTS:
        if number != count:
            found[f"K = {number}"] = {"regions": {"count": number}}
    masks = {"masks": found.get("masks", NO_CHANGES)}
    if own == "masks":
        damaged = {f"masks: {damage}": {"simulation": {"masks": damage}} for damage in DAMAGES}
        found |= damaged
        masks = {OWN: NO_CHANGES, **damaged}
    found |= {f"{name}; {BLENDED}": merged(changes, BLEND) for name, changes in masks.items()}
    return {name: Variant(changes) for name, changes in found.items()}


TABLE = Comparison(
    title="Which regions, how many, and how exact",
    reference=OWN,
    variants=variants,
    against={f"masks: {damage}; {BLENDED}": f"{OWN}; {BLENDED}" for damage in DAMAGES},
    remark=(
        f"Methods have K = {COUNT} regions. Whole images are classified; lines with {BLENDED} "
        "give those a quarter of the score and use the masks of test images, which no hospital "
        "would draw first."
    ),
)
cells, write = TABLE.cells, TABLE.write
