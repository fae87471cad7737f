"""What a run starts from: the initial weights and the text bank, made by the coordinator.

Only here does the coordinator need torch and towers, which take more memory and time to load than
everything else it does.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hica.method.model import AlignmentModel
from hica.steps.state import Bank, State
from hica.study import Study
from hica.text.bank import TextBank, build_text_bank
from hica.text.from_study import refined_text_tower
from hica.towers.from_study import adapted_tower
from hica.towers.preprocessing import transform_json
from hica_server.state import RunState

TextBankMaker = Callable[[Study, int], TextBank]
"""Makes the bank of a study for a joint space of a given width."""


def publish(
    study: Study, out: Path, weights: Path, text_bank: TextBankMaker, hubs: bool = False
) -> None:
    """Leave in the run directory `out` what its first step needs to know.

    The study's checkpoints are in the folder `weights`; for `text_bank` see `make_bank`. `hubs` is
    whether what is pinned may be fetched from a hub.

    Raises:
        CheckpointError: The checkpoint is missing or another file than the study pins.
        ConfigurationError: An unknown tower, or class texts that cannot be told apart.
        StorageError: The disk is full.
    """
    tower = adapted_tower(study, weights, torch.device("cpu"), hubs)
    bank = text_bank(study, tower.tower.dim)
    model = AlignmentModel(tower, bank, study.alignment.train_text_bank)
    dtype = study.federation.dtype
    texts = Bank(bank.classes.numpy(), bank.findings.numpy())
    start = State(
        shared={
            name: value.detach().numpy().astype(dtype, order="C")
            for name, value in model.shared().items()
        },
        bank=texts,
        texts=texts,
        centre=model.centre.numpy(),
        scale=model.scale.numpy(),
        bias=model.bias.double().numpy(),
    )
    RunState(
        study.sha256,
        start,
        tower=tower.tower.fingerprint,
        text_bank_sha256=bank.sha256,
        preprocess=transform_json(tower.tower),
    ).save(out)


def make_bank(study: Study, dim: int, texts: Path, hubs: bool = False) -> TextBank:
    """Refine the text tower on the study's texts and corpus, then embed prompts and findings.

    `dim` is the width of the joint space; the corpus is in the folder `texts`. `hubs` is whether
    what is pinned may be fetched from a hub.
    """
    settings, seed = study.text, study.study.seed
    tower = refined_text_tower(study, texts, hubs)
    return build_text_bank(tower, study.class_texts, dim, settings.max_similarity, seed)


def text_key(study: Study, texts: Path) -> str:
    """Everything that a study's refined text tower is made of, in words."""
    parts: dict[str, Any] = {
        "classes": True,
        "text": True,
        "model": {"image", "text", "text_sha256", "pretrained", "sha256"},
    }
    table = study.model_dump(mode="json", include=parts)
    return json.dumps([table, study.study.seed, str(texts.resolve())], sort_keys=True)
