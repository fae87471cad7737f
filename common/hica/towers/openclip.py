"""Loading open_clip's contrastive pairs: built-in names, `hf-hub:…` and `local-dir:…`.

The transform comes with the weights (`visual.preprocess_cfg`), so that the two cannot drift apart.
Nothing that comes with a model runs code: see `hica.towers.openclip_config`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import VisionTransformer

from hica import hub
from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.images.preprocess import Preprocess
from hica.model_folder import look_through, read_json
from hica.towers.base import ImageTower
from hica.towers.folders import check_pin, has_words, model_folder, weights_in
from hica.towers.openclip_checkpoint import load_pair
from hica.towers.openclip_config import CONFIG, read_config
from hica.towers.openclip_towers import (
    OpenCLIPImageTower,
    OpenCLIPResNetTower,
    OpenCLIPTextTower,
)
from hica.towers.preprocessing import transform
from hica.towers.reading import check_hash
from hica.towers.text_config import check_text_side, write_text_config
from hica.towers.timm_tower import TimmTower
from hica.towers.weights import Wanted, draw_weights

LOCAL, HUB = "local-dir:", "hf-hub:"
_TEXTS = ("*.json", "*.txt", "*.model")
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
)
"""Weights of a folder; the first there is."""
FILES = ((*_TEXTS, WEIGHTS[0]), (*_TEXTS, WEIGHTS[2]))
"""What is fetched of a model on a hub: the second where there is none of the first."""
OF_A_TAG = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip takes of a tag's own settings for the transform."""


def load_image(name: str, wanted: Wanted) -> ImageTower:
    """Build the image side of a pair.

    Raises:
        WeightsError: Weights that are missing, of another hash or of another model.
        ConfigurationError: open_clip does not know the model, or its patches cannot be used.
    """
    source = _source(name, wanted, "model.image")
    visual: Any = _create(source, wanted).visual
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
    return tower


def load_text(name: str, wanted: Wanted) -> OpenCLIPTextTower:
    """Build the text side of a pair; of `wanted` all but what is for images is used.

    Raises:
        WeightsError: Weights or a tokenizer that are missing, or of another model.
        ConfigurationError: open_clip does not know the model.
    """
    source = _source(name, wanted, "model.text")
    text = _create(source, wanted).text
    return OpenCLIPTextTower(text, _tokenizer(source, wanted), name)


@dataclass(frozen=True)
class _Source:
    """Where a pair comes from: a folder that was looked through, or open_clip's own list."""

    name: str
    """As the study has it."""
    key: str
    """The setting that has it."""
    folder: Path | None
    model: dict[str, Any]
    """Parameters of its constructor."""

    @property
    def on_hub(self) -> bool:
        """Whether its folder lies in the hub's cache, where files are links."""
        return bool(self.folder) and hub.PINNED.fullmatch(self.name.partition(":")[2]) is not None

    @property
    def identity(self) -> str | None:
        """What it is called in a fingerprint: not by its folder, which is another at each site."""
        return "open_clip" if self.folder else None

    @property
    def says_colours(self) -> bool:
        """Whether the folder's configuration has the mean and std of its weights."""
        if self.folder is None:
            return False
        said = read_json(self.folder / CONFIG).get("preprocess_cfg", {})
        return bool(said.get("mean") and said.get("std"))


def _source(name: str, wanted: Wanted, key: str) -> _Source:
    """Find a pair and read its configuration."""
    stay_offline()
    if name.startswith((LOCAL, HUB)):
        place = name.removeprefix(LOCAL).removeprefix(HUB)
        if name.startswith(HUB):
            folder = hub.model(place, FILES, wanted.hubs, key)
        else:
            folder = model_folder(place, FILES, wanted, key)
        if not (folder / CONFIG).is_file():
            raise WeightsError(
                f"{key}: {folder / CONFIG}: no such file; a {LOCAL}FOLDER below the folder of "
                f"weights needs {CONFIG}, weights and a tokenizer; of a folder in the layout of "
                "transformers or timm write hf:FOLDER"
            )
        model = read_config(folder, key)
        check_text_side(folder, model["text_cfg"].get("hf_model_name"))
        return _Source(name, key, folder, model)
    listed = name.replace("/", "-")
    if listed not in open_clip.list_models():
        raise ConfigurationError(
            f'model: "{name}" is not a model that open_clip knows; use tiny, timm/NAME, a name '
            f"from open_clip.list_models(), {HUB}OWNER/NAME@COMMIT or {LOCAL}FOLDER"
        )
    return _Source(name, key, None, open_clip.get_model_config(listed))


def _tokenizer(source: _Source, wanted: Wanted) -> Any:
    """The pair's tokenizer, from its folder or from beside its weights; no code comes with it."""
    closed: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    text = source.model["text_cfg"]
    from_transformers = bool(text.get("hf_tokenizer_name"))
    folder = source.folder
    if folder is None and wanted.checkpoint is not None:
        beside = wanted.checkpoint.parent
        folder = beside if (beside / "tokenizer.json").is_file() else None
    try:
        if from_transformers and folder is not None:
            look_through(folder, source.key, folder.parents[1] if source.on_hub else None)
            tokenizer = HFTokenizer(
                str(folder),
                context_length=text.get("context_length", 77),
                tokenizer_mode=text.get("tokenizer_mode"),
                **(text.get("tokenizer_kwargs") or {}),
                **closed,
            )
        else:
            name = f"{LOCAL}{folder}" if source.folder else source.name
            tokenizer = open_clip.get_tokenizer(name, **(closed if from_transformers else {}))
        one, two = tokenizer(["mass"]), tokenizer(["bone"])
        problem = "it takes different words for the same" if one.equal(two) else ""
        if from_transformers and folder is not None and not has_words(folder):
            problem = "its words are missing"
    except WeightsError:
        raise
    except Exception as error:  # transformers and its hub raise many kinds
        problem = str(error).strip().partition("\n")[0]
    if problem:
        raise WeightsError(
            f"{source.name}: its tokenizer could not be loaded ({problem}); put tokenizer.json and "
            f"tokenizer_config.json beside {CONFIG} in a {LOCAL}FOLDER, or beside the file of "
            "model.checkpoint; they are taken from nowhere else"
        )
    return tokenizer


def _create(source: _Source, wanted: Wanted) -> Any:
    """The pair; weights from the checkpoint, else the folder or the tag, else the seed."""
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
    return pair


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


def _file_of_tag(tag: dict[str, Any], source: _Source, wanted: Wanted) -> Path:
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
    config: dict[str, Any], source: _Source, wanted: Wanted
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
    return transform(
        wanted,
        own,
        f"{CONFIG} of {name}" if source.folder else f"open_clip's {name}{tag}",
        known=of_tag or source.says_colours,
        drawn=source.folder is None and wanted.checkpoint is None and not of_tag,
    )
