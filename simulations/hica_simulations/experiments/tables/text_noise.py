"""Noise in the texts: what is left when prompts and findings are damaged.

A bank that starts from the images' class means hides what its texts do: every damage is also done
to a bank that starts at the texts.
"""

from collections.abc import Callable, Mapping

from hica.study import NO_CHANGES, merged
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.experiments.tables.texts import (
    Classes,
    Texts,
    of_another_class,
    without_findings,
    words_dropped,
    words_shuffled,
)
from hica_simulations.scenario import Scenario

OWN = "own start"
AT_TEXTS = "bank starts at the texts"
DAMAGES: dict[str, Callable[[Classes, int], Texts]] = {
    "25 % of the words dropped": lambda classes, seed: words_dropped(classes, 0.25, seed),
    "50 % of the words dropped": lambda classes, seed: words_dropped(classes, 0.5, seed),
    "words shuffled": words_shuffled,
    "texts of another class": lambda classes, _: of_another_class(classes),
    "no findings": lambda classes, _: without_findings(classes),
}
"""What is done to the texts of some classes, with a seed."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Every damage, from the study's own start and from the texts; drawn from its seed."""
    classes, seed = scenario.study.classes, scenario.study.study.seed
    damages = {"": NO_CHANGES}
    for damage, damaged in DAMAGES.items():
        damages[f": {damage}"] = damaged(classes, seed).changes(scenario.simulation)
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
