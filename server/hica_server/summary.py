"""What follows from a study: the few lines a coordinator wants to see before sites are asked."""

from pathlib import Path
from typing import Any

import torch

from hica.steps.plan import plan
from hica.study import Study
from hica.towers.from_study import adapted_tower
from hica.towers.preprocessing import told
from hica_server.publication import make_bank


def summarise(study: Study) -> dict[str, Any]:
    """Classes, findings, model, stages, rules and hash of a study, in words and numbers."""
    model, first, second = study.model, study.pretraining, study.alignment
    rules = study.federation
    return {
        "study": study.study.name,
        "sha256": study.sha256,
        "seed": study.study.seed,
        "classes": study.class_names,
        "prompts": sum(len(item.prompts) for item in study.classes),
        "findings": len(study.finding_names),
        "model": f"image {model.image}, text {model.text}, train {model.train}",
        "preprocess": f"{model.preprocess_words} (--data shows all of it)",
        "precision": f"{rules.dtype} on the way, float32 on a CPU, bfloat16 on a GPU",
        "stage_1": f"{first.rounds} rounds, {first.clusters} clusters" if first.rounds else "off",
        "stage_2": f"{second.rounds} rounds, {second.shots} shots of a class and site",
        "regions": f"{study.regions.method}, up to {study.regions.count} of an image",
        "federation": f"{rules.aggregation}, quorum {rules.quorum}, deadline {rules.deadline:g} s",
        "steps": len(plan(study)),
    }


def rehearse(study: Study, data: Path, hubs: bool = False) -> dict[str, Any]:
    """Load the image tower and embed the texts, as a run would at its start.

    Checkpoint and corpus are in the folder `data`; `hubs` is whether what is pinned may be fetched
    from a hub.

    Raises:
        CheckpointError: The checkpoint is missing or another file than the study pins.
        ConfigurationError: An unknown tower, or class texts that cannot be told apart.
        DataError: The corpus cannot be read.
    """
    tower = adapted_tower(study, data, torch.device("cpu"), hubs)
    bank = make_bank(study, tower.tower.dim, data, hubs)
    cosines = bank.classes @ bank.classes.T - 2.0 * torch.eye(len(bank.classes))
    return {
        "preprocess": [f"{name} {words}" for name, words in told(tower.tower).items()],
        "trained_weights": sum(weight.numel() for weight in tower.trainable().values()),
        "image_tower": tower.tower.fingerprint,
        "text_bank": bank.sha256,
        "nearest_class_texts": round(float(cosines.max()), 3),
    }
