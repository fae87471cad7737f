"""model_of: the model that a study has left, from its file and the tower that the study names."""

from pathlib import Path

import torch

from hica.errors import CheckpointError
from hica.method.model import AlignmentModel
from hica.steps.state import State
from hica.study import Study
from hica.text.bank import TextBank
from hica.towers.from_study import adapted_tower


def model_of(
    study: Study, learnt: State, weights: Path, hubs: bool, fingerprint: str
) -> AlignmentModel:
    """The study's model on the CPU, with what was learnt.

    `weights` is the folder of what the study pins, which may be fetched where `hubs` says so. The
    tower must be the one of `fingerprint`; empty: it is not known.

    Raises:
        WeightsError: The weights are missing, or others than the study pins.
        CheckpointError: The tower that this machine builds is another than the study's.
        MessageError: What was learnt does not fit the study's model.
    """
    tower = adapted_tower(study, weights, torch.device("cpu"), hubs)
    if fingerprint not in ("", tower.tower.fingerprint):
        raise CheckpointError(
            f"{weights}: the image tower {study.model.image} is here another than in the study's "
            "run; put the weights there that it ran with, and use the same versions of timm and "
            "open_clip"
        )
    bank = TextBank.assemble(study.class_texts, *map(torch.from_numpy, learnt.bank))
    trained = study.alignment.train_text_bank
    model = AlignmentModel(tower, bank, trained, unit_features=study.privacy.is_private)
    centred = study.alignment.centring != "none"
    centre = torch.from_numpy(learnt.centre)
    model.load(
        {name: torch.from_numpy(value) for name, value in learnt.shared.items()},
        centre if centred else torch.zeros_like(centre),
        torch.from_numpy(learnt.scale),
        torch.from_numpy(learnt.bias),
    )
    return model.eval()
