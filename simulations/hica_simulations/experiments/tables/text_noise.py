"""Noise in the texts: what is left when prompts and findings are damaged.

A bank that starts from the images' class means hides what its texts do: every damage is also done
to a bank that starts at the texts.
"""

from collections.abc import Mapping

from hica.study import NO_CHANGES, merged
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.experiments.tables.texts import (
    of_another_class,
    without_findings,
    words_dropped,
    words_shuffled,
)
from hica_simulations.scenario import Scenario

OWN = "own start"
AT_TEXTS = "bank starts at the texts"
DAMAGES = (
    "25 % of the words dropped",
    "50 % of the words dropped",
    "words shuffled",
    "texts of another class",
    "no findings",
)


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Every damage, from the study's own start and from the texts; drawn from its seed."""
    classes, seed = scenario.study.classes, scenario.study.study.seed
    texts = (
        words_dropped(classes, 0.25, seed),
        words_dropped(classes, 0.5, seed),
        words_shuffled(classes, seed),
        of_another_class(classes),
        without_findings(classes),
    )
    damages = {"": NO_CHANGES}
    for damage, damaged in zip(DAMAGES, texts, strict=True):
        damages[f": {damage}"] = damaged.changes(scenario.simulation)
    starts = {OWN: NO_CHANGES}
    if scenario.study.alignment.starts_at_means:  # else it starts at the texts anyhow
        starts[AT_TEXTS] = {"alignment": {"bank_start": "text"}}
    return {
        f"{start}{damage}": Variant(merged(changes, first))
        for damage, changes in damages.items()  # lines of the same texts follow each other
        for start, first in starts.items()
    }


TABLE = Comparison(
    title="What noise in the texts does",
    reference=OWN,
    variants=variants,
    # The guard against texts that cannot be told apart would refuse some of the damaged ones.
    everywhere={"text": {"max_similarity": 0.998}},
    against={f"{AT_TEXTS}: {damage}": AT_TEXTS for damage in DAMAGES},
    remark="Words are dropped and shuffled anew with every seed.",
)
cells, write = TABLE.cells, TABLE.write
