"""Loading a pair of transformers from a folder of the hub's layout; no code of it is run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.printable import plain
from hica.towers.folders import TEXTS, check_pin, has_words, model_folder, weights_in
from hica.towers.hugging_face_config import CONFIG, read_kind, read_transform, refuse_unsaid
from hica.towers.hugging_face_towers import HuggingFaceImageTower, HuggingFaceTextTower
from hica.towers.preprocessing import AS_BUILT, transform
from hica.towers.reading import names, refuse_broken
from hica.towers.weights import Wanted

PREFIX = "hf:"
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights of a folder; the first there is, as transformers takes them."""
FILES = tuple(
    (*TEXTS, weights)
    for weights in (
        "model*.safetensors",
        "pytorch_model*.bin",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    )
)
"""What is fetched of a model on a hub: each where there is none of the one before."""
UNUSED = re.compile(r"(position_ids|logit_scale|logit_bias)$")
"""Names of what older releases have, or training alone needs."""


def hub_folder(name: str, wanted: Wanted, key: str) -> Path:
    """The folder of `hf:…`, looked through."""
    stay_offline()
    return model_folder(name.removeprefix(PREFIX), FILES, wanted, key)


def load_image(name: str, folder: Path, weights: Path, wanted: Wanted) -> HuggingFaceImageTower:
    """Build the image side of a pair in a folder whose hash was checked.

    Raises:
        WeightsError: A model that is not known, or weights that are missing or of another one.
        ConfigurationError: The model cannot be cut into patches, or images are prepared in a way
            that is not offered.
    """
    kind = read_kind(folder, "model.image")
    pair = _pair(folder, kind, weights)
    config = pair.vision_model.config
    size = (
        int(config.num_patches**0.5) * config.patch_size if kind == "siglip2" else config.image_size
    )
    said, file = read_transform(folder, size, name)
    if said and said["size"] != size and wanted.image_size is None:
        raise ConfigurationError(
            f'model.image = "{name}": its images have {said["size"]} pixels by {file}, '
            f"and {size} by {CONFIG}; correct one of the two, or set model.image_size"
        )
    if not said:
        refuse_unsaid(folder, wanted)
    own = said or {"size": size, "interpolation": "bicubic", "resize": "squash"}
    source = f"{file} of {name}" if said else AS_BUILT
    preprocess, sources = transform(wanted, own, source, known=bool(said), drawn=False)
    if not said and wanted.image_size is None:
        sources["size"] = f"{CONFIG} of {name}"
    projection = pair.visual_projection if kind == "clip" else nn.Identity()
    tower = HuggingFaceImageTower(pair.vision_model, projection, name, kind, preprocess)
    tower.sources = sources
    return tower


def load_text(name: str, folder: Path, weights: Path) -> HuggingFaceTextTower:
    """Build the text side of a pair in a folder whose hash was checked.

    Raises:
        WeightsError: A model that is not known, weights that are of another one, no tokenizer.
    """
    kind = read_kind(folder, "model.text")
    pair = _pair(folder, kind, weights)
    projection = pair.text_projection if kind == "clip" else nn.Identity()
    return HuggingFaceTextTower(pair.text_model, projection, load_tokenizer(folder), name, kind)


def _pair(folder: Path, kind: str, weights: Path) -> Any:
    """Both sides, by transformers' own code."""
    import transformers

    model: Any = {
        "clip": transformers.CLIPModel,
        "siglip": transformers.SiglipModel,
        "siglip2": getattr(transformers, "Siglip2Model", None),
    }[kind]
    if model is None:
        raise WeightsError(f"{folder}: model_type = {kind!r}: needs a newer transformers")
    own = {"attn_implementation": "sdpa", "use_safetensors": ".safetensors" in weights.name}
    return from_folder(model, folder, weights, f"{kind} model", UNUSED, **own)


def from_folder(
    model: Any, folder: Path, weights: Path, what: str, unused: re.Pattern[str], **source: Any
) -> Any:
    """A model of transformers in float32, from a folder alone and by transformers' own code.

    `model` is its class, `what` what messages call it; keys that `unused` is found in may be
    missing from the `weights`, or be too many there.

    Raises:
        WeightsError: The weights cannot be loaded, are of another model, or are broken.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=[]):  # must not move the caller's seed
            loaded, found = model.from_pretrained(
                folder,
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                **source,
            )
    except Exception as error:  # transformers raises many kinds
        why = plain(str(error).strip().partition("\n")[0][:300]) or type(error).__name__
        raise WeightsError(
            f"{folder}: transformers cannot load this {what} ({why}); fetch the whole folder anew"
        ) from None
    problems = []
    for words, group in (
        ("missing", "missing_keys"),
        ("unexpected", "unexpected_keys"),
        ("of another shape", "mismatched_keys"),
    ):
        keys = [key if isinstance(key, str) else key[0] for key in found.get(group) or ()]
        if keys := [key for key in keys if not unused.search(key)]:
            problems.append(f"{words}: {names(sorted(keys))}")
    if problems:
        raise WeightsError(
            f"{weights}: not weights of the {what} in {folder / 'config.json'}\n  "
            + "\n  ".join(problems)
            + "\nfetch the whole folder anew"
        )
    refuse_broken(loaded.state_dict(), weights)
    return loaded


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; it is taken from nowhere else, and no code comes with it.

    Raises:
        WeightsError: It is missing or cannot be used.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        one, two = tokenizer(["mass", "bone"]).input_ids
        problem = "it takes different words for the same" if one == two else ""
        if not has_words(folder):
            problem = "its words are missing"
        if tokenizer.pad_token_id is None:
            problem = "it has no token for padding"
    except Exception as error:  # transformers raises many kinds
        problem = plain(str(error).strip().partition("\n")[0][:300]) or type(error).__name__
    if problem:
        raise WeightsError(
            f"{folder}: its tokenizer could not be loaded ({problem}); put tokenizer.json and "
            "tokenizer_config.json there; they are taken from nowhere else"
        )
    return tokenizer


def checked_weights(
    name: str, folder: Path, wanted: Wanted, key: str, files: Sequence[str] = WEIGHTS
) -> Path:
    """The weights file of a folder, the first there is, after the folder's hash was checked.

    Raises:
        WeightsError: There is none, or the folder is another one or not pinned.
    """
    weights = weights_in(folder, files, key)
    check_pin(name.removeprefix(PREFIX), folder, weights, wanted, key)
    return weights
