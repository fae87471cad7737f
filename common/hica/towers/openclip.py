"""Loading open_clip's contrastive pairs: built-in names, `hf-hub:…` and `local-dir:…`.

The transform comes with the weights (`visual.preprocess_cfg`), so that the two cannot drift apart.
Nothing that comes with a model runs code: see `hica.towers.openclip_config`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from hica import hub
from hica.errors import ConfigurationError, WeightsError
from hica.images.preprocess import Preprocess
from hica.towers.base import ImageTower
from hica.towers.folders import check_pin, weights_in
from hica.towers.openclip_checkpoint import load_pair
from hica.towers.openclip_config import CONFIG
from hica.towers.openclip_source import (
    LOCAL,
    WEIGHTS,
    Source,
    find_source,
    load_tokenizer,
)
from hica.towers.openclip_towers import (
    OpenCLIPImageTower,
    OpenCLIPResNetTower,
    OpenCLIPTextTower,
)
from hica.towers.preprocessing import transform
from hica.towers.reading import check_hash
from hica.towers.text_config import write_text_config
from hica.towers.timm_tower import TimmTower
from hica.towers.weights import Wanted, draw_weights

OF_A_TAG = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip takes of a tag's own settings for the transform."""


def load_image(name: str, wanted: Wanted) -> ImageTower:
    """Build the image side of a pair.

    Raises:
        WeightsError: Weights that are missing, of another hash or of another model.
        ConfigurationError: open_clip does not know the model, or its patches cannot be used.
    """
    source = find_source(name, wanted, "model.image")
    pair, settings = _create(source, wanted)
    visual: Any = pair.visual
    preprocess, sources = _preprocess(visual.preprocess_cfg, source, wanted)
    tower: ImageTower
    if isinstance(visual, VisionTransformer):
        tower = OpenCLIPImageTower(visual, name, preprocess, source.identity)
    elif isinstance(visual, ModifiedResNet):
        tower = OpenCLIPResNetTower(visual, name, preprocess, source.identity)
    elif isinstance(visual, TimmModel) and "pool" not in dict(visual.head.named_children()):
        tower = TimmTower(
            visual.trunk, name, preprocess, projection=visual.head, identity=source.identity
        )
    else:
        raise ConfigurationError(
            f'model.image = "{name}": patches of a {type(visual).__name__} cannot be placed in the '
            "joint space; use a CLIP with a ViT, for example ViT-B-16"
        )
    tower.sources = sources
    tower.built_from = {**source.model, **settings}
    return tower


def load_text(name: str, wanted: Wanted) -> OpenCLIPTextTower:
    """Build the text side of a pair; of `wanted` all but what is for images is used.

    Raises:
        WeightsError: Weights or a tokenizer that are missing, or of another model.
        ConfigurationError: open_clip does not know the model.
    """
    source = find_source(name, wanted, "model.text")
    text = _create(source, wanted)[0].text
    return OpenCLIPTextTower(text, load_tokenizer(source, wanted), name)


def _create(source: Source, wanted: Wanted) -> tuple[Any, dict[str, Any]]:
    """The pair, and what was set of it beside its configuration.

    Weights are from the checkpoint, else the folder or the tag, else the seed.
    """
    name, file = source.name, wanted.checkpoint
    settings: dict[str, Any] = {}
    tag: dict[str, Any] = {}
    pin = wanted.sha256
    if source.folder is not None:
        if file is None:
            file, pin = weights_in(source.folder, WEIGHTS, source.key), None
            check_pin(name.partition(":")[2], source.folder, file, wanted, source.key)
        # Nothing but what was checked: these go before what open_clip reads in the file again.
        vision = {**source.model["vision_cfg"], "timm_model_pretrained": False}
        if wanted.image_size is not None:
            vision["image_size"] = wanted.image_size
        settings = {**source.model, "vision_cfg": vision}
    elif file is None and wanted.pretrained is not None:
        tag = open_clip.get_pretrained_cfg(name.replace("/", "-"), wanted.pretrained)
        file, pin = _file_of_tag(tag, source, wanted), None
        settings = {"quick_gelu": bool(tag.get("quick_gelu"))}  # as its weights were trained
    try:
        with _untold(), torch.random.fork_rng(devices=[]), TemporaryDirectory() as texts:
            if source.folder and file and settings["text_cfg"].get("hf_model_name"):
                written = write_text_config(
                    Path(texts), source.folder, settings["text_cfg"]["hf_model_name"], file
                )
                text = {**settings["text_cfg"], "hf_model_name": str(written)}
                settings = {**settings, "text_cfg": {**text, "hf_model_pretrained": False}}
            pair = open_clip.create_model(
                f"{LOCAL}{source.folder}" if source.folder else name,
                load_weights=False,
                pretrained_text=False,
                force_custom_text=True,
                force_image_size=wanted.image_size,
                force_preprocess_cfg={key: tag[key] for key in OF_A_TAG if key in tag},
                **settings,
            )
    except WeightsError:
        raise
    except Exception as error:  # open_clip, transformers and the hub raise many kinds
        why = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{name}: open_clip could not build the model ({why}); check {source.key}, or put the "
            f"whole folder of the model below the folder of weights and use {LOCAL}FOLDER"
        ) from None
    if file is None:
        draw_weights(pair, wanted.seed)
    else:
        load_pair(pair, file, pin, name)
    return pair, settings


@contextmanager
def _untold() -> Iterator[None]:
    """Pass over open_clip's warning of random weights, in whose place others are put."""

    def other(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


def _file_of_tag(tag: dict[str, Any], source: Source, wanted: Wanted) -> Path:
    """The weights file of one of open_clip's tags, fetched if that is allowed, its hash checked."""
    owner_and_name, _, file = str(tag.get("hf_hub") or "").rpartition("/")
    if not owner_and_name:
        raise WeightsError(
            f'model.pretrained = "{wanted.pretrained}": no weights of {source.name} on a hub; '
            "fetch them elsewhere and give model.checkpoint and model.sha256"
        )
    files = [file] if file else [WEIGHTS[0], WEIGHTS[2]]
    if file.endswith((".bin", ".pth")):
        files = [f"{file[:-4]}.safetensors", file]
    key = f'model.pretrained = "{wanted.pretrained}"'
    path = hub.weights_file(owner_and_name, files, wanted.sha256, wanted.hubs, key)
    check_hash(path, wanted.sha256)
    return path


def _preprocess(
    config: dict[str, Any], source: Source, wanted: Wanted
) -> tuple[Preprocess, dict[str, str]]:
    """open_clip's transform at inference as ours, and who says what of it."""
    size, name = config["size"], source.name
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ConfigurationError(
            f'model.image = "{name}": takes images of {size} pixels; only square ones are supported'
        )
    if config["resize_mode"] == "longest" and config["fill_color"]:
        raise ConfigurationError(
            f'model.image = "{name}": fill_color = {config["fill_color"]}: its images have a '
            "border of that colour, and here borders are black; use another model"
        )
    own = {
        "size": sides.pop(),
        "mean": config["mean"],
        "std": config["std"],
        "interpolation": "bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        "resize": config["resize_mode"],
    }
    of_tag = wanted.pretrained is not None and source.folder is None and wanted.checkpoint is None
    tag = f", {wanted.pretrained}" if of_tag else ""
    whose = f"open_clip's {name}{tag}"
    if source.folder:
        whose = f"{CONFIG} of {name}" if source.says_colours else "open_clip's default"
    preprocess, sources = transform(
        wanted,
        own,
        whose,
        known=of_tag or source.says_colours,
        drawn=source.folder is None and wanted.checkpoint is None and not of_tag,
    )
    if source.folder and wanted.image_size is None:
        sources["size"] = f"{CONFIG} of {name}"
    return preprocess, sources
