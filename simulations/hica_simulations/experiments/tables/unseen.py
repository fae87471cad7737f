"""Unseen classes: each class in turn held out of training, and named from its texts alone.

A model that has learnt the other classes keeps a trained bank and intercepts away from a class it
never saw; so each class is left out of the recipe, and of the recipe with its texts as they are.
"""

from collections.abc import Mapping

import numpy as np

from hica.errors import ConfigurationError
from hica.method.metrics import macro_auroc
from hica_simulations.experiments.baselines.shots import runnable
from hica_simulations.experiments.tables.cells import Row
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.predictions import Predictions
from hica_simulations.scenario import Scenario

SEEN = "all classes seen"
TEXTS_AS_THEY_ARE = {"alignment": {"train_text_bank": False}, "calibration": {"rounds": 0}}
FROM_TEXTS = ("zero_shot",)
"""Baselines that can name a class without an image of it."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """All classes seen; without each of them.

    Raises:
        ConfigurationError: Of two classes, one would be left to train on.
    """
    study = scenario.study
    if len(study.classes) < 3:
        raise ConfigurationError(
            f"{study.study.name}: table unseen: has {len(study.classes)} classes, and without one "
            "of them there is nothing to tell apart: take a study of at least 3, for example "
            "breast_ultrasound.toml or pneumonia_kinds.toml"
        )
    baselines = runnable(study, FROM_TEXTS)
    found = {SEEN: Variant(), f"{SEEN}: texts as they are": Variant(TEXTS_AS_THEY_ARE)}
    found |= {name: Variant(method=name) for name in baselines}
    for name in study.class_names:
        without = {"simulation": {"unseen": [name]}}
        found[f"without {name}"] = Variant(without)
        found[f"without {name}: texts as they are"] = Variant({**without, **TEXTS_AS_THEY_ARE})
        found |= {f"without {name}: {other}": Variant(without, other) for other in baselines}
    return found


def each_class(found: Predictions, _: Row) -> dict[str, float | None]:
    """Recall of each class, and its AUROC against the rest."""
    chosen = found.probabilities.argmax(axis=1)
    shares: dict[str, float | None] = {}
    for number, name in enumerate(found.classes):
        members = found.labels == number
        score = found.probabilities[:, number]
        area = macro_auroc(np.stack([1 - score, score], axis=1), members.astype(np.int64))
        right = (chosen == number)[members]
        shares[f"recall of {name}"] = float(right.mean()) if len(right) else None
        shares[f"AUROC of {name}"] = None if np.isnan(area) else area
    return shares


TABLE = Comparison(
    title="Classes that no image was trained on",
    reference=SEEN,
    variants=variants,
    compared=("auroc",),
    extra=each_class,
    remark=(
        "What is asked of a line without a class is that class's own recall and AUROC against the "
        "rest, beside those where it was seen."
    ),
)
cells, write = TABLE.cells, TABLE.write
