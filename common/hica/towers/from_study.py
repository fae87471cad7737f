"""From a study to its image tower: where configuration meets the towers' plain parameters."""

from pathlib import Path

import torch

from hica.below import below
from hica.errors import ConfigurationError
from hica.study import Study
from hica.towers import FOLDERS, TextTower, load_image_tower, load_text_tower
from hica.towers.adaptation import AdaptedTower, adapt
from hica.towers.layered import LayeredTower


def checkpoint_of(study: Study, weights: Path) -> Path | None:
    """The study's weights file below the folder `weights`; None where it names none.

    Raises:
        WeightsError: Its path leads out of the folder.
    """
    name = study.model.checkpoint
    return below(weights, name, "model.checkpoint") if name else None


def pinned_text_tower(study: Study, weights: Path, hubs: bool = False) -> TextTower:
    """The study's text tower as it was trained elsewhere: the same at every site.

    `hubs` is whether what is pinned may be fetched from a hub.

    Raises:
        WeightsError: The weights are missing below the folder `weights`, are others than the study
            pins, or are not pinned.
        ConfigurationError: A tower that knows no language before the study's own texts.
    """
    settings = study.model
    pair = settings.image if settings.text == "same" else settings.text
    if not pair.startswith(FOLDERS):
        raise ConfigurationError(
            f'model.text = "{settings.text}": reports are read by a text tower that knows their '
            'language, with its weights in a folder; set model.text = "hf:FOLDER" and '
            "model.text_sha256"
        )
    return load_text_tower(
        settings.text,
        image=settings.image,
        checkpoint=checkpoint_of(study, weights),
        sha256=settings.sha256,
        text_sha256=settings.text_sha256,
        vocabulary=[],
        seed=study.study.seed,
        weights=weights,
        hubs=hubs,
        pinned=True,
    )


def adapted_tower(
    study: Study, weights: Path, device: torch.device, hubs: bool = False
) -> AdaptedTower:
    """The study's image tower with its adaptation: the same at the coordinator and at every site.

    `hubs` is whether what is pinned may be fetched from a hub.

    Raises:
        WeightsError: The weights are missing below the folder `weights`, are others than the study
            pins, or are not here and not to be fetched.
        ConfigurationError: An unknown tower, or a way of training it does not offer.
    """
    settings = study.model
    tower = load_image_tower(
        settings.image,
        pretrained=settings.pretrained,
        checkpoint=checkpoint_of(study, weights),
        sha256=settings.sha256,
        pad_type=settings.pad_type,
        image_size=settings.image_size,
        mean=settings.mean,
        std=settings.std,
        seed=study.study.seed,
        weights=weights,
        hubs=hubs,
    )
    if settings.layers:
        tower = LayeredTower(tower, settings.layers, settings.maps)
    adapted = adapt(
        tower,
        settings.train,
        adapter_width=settings.adapter_width,
        lora_rank=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        seed=study.study.seed,
    )
    # Convolutions of a few channels are a fifth faster in channels_last on a CPU. On a GPU cuDNN
    # takes seconds, in every thread, to choose what to run for a shape it has not seen so far.
    if device.type == "cpu":
        return adapted.to(memory_format=torch.channels_last)
    return adapted.to(device)
