"""From a study to its image tower: where configuration meets the towers' plain parameters."""

from pathlib import Path

import torch

from hica.study import Study
from hica.towers import load_image_tower
from hica.towers.adaptation import AdaptedTower, adapt
from hica.towers.layered import LayeredTower


def adapted_tower(study: Study, weights: Path, device: torch.device) -> AdaptedTower:
    """The study's image tower with its adaptation: the same at the coordinator and at every site.

    Raises:
        CheckpointError: The checkpoint is missing below `weights`, or is another file than the
            study pins.
        ConfigurationError: An unknown tower, or a way of training it does not offer.
    """
    settings = study.model
    tower = load_image_tower(
        settings.image,
        pretrained=settings.pretrained,
        checkpoint=weights / settings.checkpoint if settings.checkpoint else None,
        sha256=settings.sha256,
        pad_type=settings.pad_type,
        image_size=settings.image_size,
        mean=settings.mean,
        std=settings.std,
        seed=study.study.seed,
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
