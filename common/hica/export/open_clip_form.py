"""open_clip_form: `open_clip/`, a pair that `open_clip.create_model_and_transforms` loads.

Centre and gain of the features are in the last layer of the image tower, so that open_clip's own
cosine of image and text is HiCA's. What cannot be put there has no such form.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hica.export.classifier import Exported, NotPossibleError
from hica.export.open_clip_vision import vision_of
from hica.export.text_table import fill, text_config, write_tokenizer

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def write(folder: Path, exported: Exported) -> None:
    """Write configuration, weights and tokenizer.

    Raises:
        NotPossibleError: open_clip has no model that computes the same.
    """
    import open_clip
    from open_clip.tokenizer import get_clean_fn
    from safetensors.torch import save_file

    classifier = exported.classifier
    vision = vision_of(classifier)
    texts = [get_clean_fn("whitespace")(text) for text in exported.texts]
    if len(set(texts)) < len(texts):
        raise NotPossibleError("two texts of the study are the same after open_clip's cleaning")
    model: dict[str, Any] = {
        "embed_dim": len(classifier.centre),
        "vision_cfg": vision.config,
        "text_cfg": text_config(len(texts)),
        "quick_gelu": vision.quick_gelu,
        "init_logit_scale": math.log(1 / classifier.temperature),
    }
    with torch.random.fork_rng(devices=[]):
        pair: Any = open_clip.CustomTextCLIP(**model)
    fill(pair.text, _rows(exported))
    state = {f"visual.{name}": value for name, value in vision.state.items()}
    own = pair.state_dict()
    others = sorted(
        name
        for name in own.keys() | state.keys()
        if name.startswith("visual.")
        and getattr(own.get(name), "shape", None) != getattr(state.get(name), "shape", None)
    )
    if others:
        raise NotPossibleError(
            f"open_clip builds this tower with other weights ({', '.join(others[:3])}): for "
            "another image size, or with another head"
        )
    save_file(
        {name: value.contiguous().clone() for name, value in {**own, **state}.items()},
        folder / WEIGHTS,
        {"format": "pt"},
    )
    write_tokenizer(folder, texts)
    look = classifier.preprocess
    preprocess = {
        "size": look.size,
        "mode": "RGB",
        "mean": list(look.mean),
        "std": list(look.std),
        "interpolation": look.interpolation,
        "resize_mode": look.resize,
        "fill_color": 0,
    }
    table = {"model_cfg": {**model, "custom_text": True}, "preprocess_cfg": preprocess}
    (folder / CONFIG).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def logits(folder: Path, exported: Exported, colours: Tensor) -> Tensor:
    """Logits [B, C] of images in one view, by open_clip's documented calls."""
    import open_clip

    place = f"local-dir:{folder}"
    with torch.random.fork_rng(devices=[]):
        model, _, _ = open_clip.create_model_and_transforms(place)
    texts = open_clip.get_tokenizer(place)(exported.classes)
    model.eval()
    classifier = exported.classifier
    images = model.encode_image((colours - classifier.mean) / classifier.std, normalize=True)
    words = model.encode_text(texts, normalize=True)
    found: Tensor = model.logit_scale.exp() * images @ words.T + classifier.bias
    return found


def _rows(exported: Exported) -> Tensor:
    """[n, D] of `exported.texts`: a finding that is called as a class is the class."""
    classifier = exported.classifier
    rows = dict(zip(exported.findings, classifier.findings, strict=True))
    rows |= dict(zip(exported.classes, classifier.classes, strict=True))
    return torch.stack([rows[text] for text in exported.texts])
