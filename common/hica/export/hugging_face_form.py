"""hugging_face_form: `hugging_face/`, the image tower as transformers has it, and a head.

No code of the folder is run to load the tower. transformers has no model that ends in a cosine to
texts after centring, so what comes after the tower is in `head.safetensors`, with 30 lines of
Python (`head.py`) that a reader may as well write for themselves.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hica.export.classifier import Exported, NotPossibleError
from hica.export.copied import write_code, write_preprocessing

LOADER = {"timm_wrapper": "AutoModel", "clip_vision_model": "CLIPVisionModelWithProjection"}
"""What of transformers loads a folder, by its `model_type`; of others `AutoModel`."""


@torch.no_grad()
def write(folder: Path, exported: Exported) -> None:
    """Write the tower in transformers' layout, and the head.

    Raises:
        NotPossibleError: transformers has no such tower.
    """
    import transformers

    from hica.towers.hugging_face_towers import HuggingFaceImageTower
    from hica.towers.openclip_towers import OpenCLIPImageTower
    from hica.towers.timm_tower import TimmTower

    classifier = exported.classifier
    tower: Any = classifier.tower
    head: dict[str, Tensor] = {}
    if isinstance(tower, TimmTower):
        head = _projection(tower.projection)
        model = _of_timm(tower)
    elif isinstance(tower, OpenCLIPImageTower):
        model = _of_open_clip(tower)
    elif isinstance(tower, HuggingFaceImageTower):
        model = _of_transformers(tower)
    else:
        raise NotPossibleError(
            f"transformers has no image tower like {tower.name} ({type(tower).__name__})"
        )
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    write_head(folder, exported, head)
    write_preprocessing(folder, exported)
    write_code(folder, "head", "preprocess")


@torch.no_grad()
def logits(folder: Path, exported: Exported, colours: Tensor) -> Tensor:
    """Logits [B, C] of images in one view, by transformers' documented calls."""
    import transformers

    from hica.export.standalone.head import Head

    classifier = exported.classifier
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    loader: Any = getattr(transformers, LOADER.get(kind, "AutoModel"))
    model = loader.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
    ).eval()
    made = model(pixel_values=(colours - classifier.mean) / classifier.std)
    features = made.image_embeds if kind == "clip_vision_model" else made.pooler_output
    return Head(folder)(features)


def write_head(folder: Path, exported: Exported, more: dict[str, Tensor]) -> None:
    """`head.safetensors` and `head.json`: all that comes after the tower."""
    from safetensors.torch import save_file

    classifier = exported.classifier
    arrays = {name: getattr(classifier, name) for name in HEAD} | more
    if classifier.adapter is not None:
        arrays |= {f"adapter.{name}": w for name, w in classifier.adapter.state_dict().items()}
    arrays = {name: value.detach().contiguous().clone() for name, value in arrays.items()}
    save_file(arrays, folder / "head.safetensors", {"format": "pt"})
    settings = {
        "classes": exported.classes,
        "findings": exported.findings,
        "temperature": classifier.temperature,
        "unit_features": classifier.unit_features,
    }
    (folder / "head.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


HEAD = ("classes", "findings", "centre", "gain", "bias")


def _projection(module: nn.Module) -> dict[str, Tensor]:
    """What a pair of open_clip has after its model of timm, if it is one layer at most."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if len(layers) > 1:
        raise NotPossibleError("its projection after timm's model has two layers")
    return {f"projection.{name}": w for layer in layers for name, w in layer.named_parameters()}


def _of_timm(tower: Any) -> Any:
    from transformers import TimmWrapperConfig, TimmWrapperModel

    built, look = tower.built_from, tower.preprocess
    pair = built.get("vision_cfg", {})
    arguments = {k: v for k, v in built.get("arguments", {}).items() if k != "num_classes"}
    if pair.get("timm_pool"):
        arguments["global_pool"] = pair["timm_pool"]
    # So that transformers' own image processor does what HiCA does, where timm can say it.
    said = {
        "input_size": [3, look.size, look.size],
        "mean": list(look.mean),
        "std": list(look.std),
        "interpolation": look.interpolation,
        "crop_pct": 1.0,
        "crop_mode": {"squash": "squash", "shortest": "center", "longest": "border"}[look.resize],
    }
    settings: dict[str, Any] = {"num_labels": 0, "pretrained_cfg": said}
    config = TimmWrapperConfig(
        architecture=pair.get("timm_model_name") or built["architecture"],
        model_args=arguments or None,
        **settings,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            model = TimmWrapperModel(config)
        model.timm_model.load_state_dict(tower.trunk.state_dict())
    except (RuntimeError, TypeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise NotPossibleError(f"transformers builds timm's model otherwise: {why}") from None
    return model


def _of_transformers(tower: Any) -> Any:
    import transformers

    config = tower.vision.config
    if tower.preprocess.size % config.patch_size or tower.kind == "siglip2":
        raise NotPossibleError("SigLIP 2 takes patches, not images")
    if getattr(config, "image_size", None) != tower.preprocess.size:
        raise NotPossibleError(
            f"the study gives it images of {tower.preprocess.size} pixels, and its folder says "
            f"{config.image_size}"
        )
    with torch.random.fork_rng(devices=[]):
        if tower.kind == "siglip":
            model: Any = transformers.SiglipVisionModel(config)
            _load(model, tower.vision)
            return model
        config.projection_dim = tower.dim
        model = transformers.CLIPVisionModelWithProjection(config)
    _load(model, tower.vision)
    model.visual_projection.load_state_dict(tower.projection.state_dict())
    return model


def _load(model: Any, vision: nn.Module) -> None:
    """Weights of an image side, which newer releases hold without a module of its own."""
    inner = getattr(model, "vision_model", model)
    inner.load_state_dict(vision.state_dict())


def _of_open_clip(tower: Any) -> Any:
    """open_clip's ViT by transformers' names."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    state, built = tower.visual.state_dict(), tower.built_from
    vision = built["vision_cfg"]
    width, layers = vision.get("width", 768), vision.get("layers", 12)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=width // vision.get("head_width", 64),
        image_size=tower.preprocess.size,
        patch_size=vision.get("patch_size", 16),
        projection_dim=tower.dim,
        hidden_act="quick_gelu" if built.get("quick_gelu") else "gelu",
        layer_norm_eps=tower.visual.ln_post.eps,
    )
    with torch.random.fork_rng(devices=[]):
        model: Any = CLIPVisionModelWithProjection(config)
    found, own = _renamed(state, tower), model.state_dict()
    others = [
        name
        for name in sorted(own.keys() | found.keys())
        if getattr(own.get(name), "shape", None) != getattr(found.get(name), "shape", None)
        and not name.endswith("position_ids")
    ]
    if others:
        raise NotPossibleError(
            f"transformers' CLIP has no place for this ViT ({', '.join(others[:3])})"
        )
    model.load_state_dict(found, strict=False)
    return model


PLACES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.": "embeddings.patch_embedding.",
    "ln_pre.": "pre_layrnorm.",  # transformers' own spelling
    "ln_post.": "post_layernorm.",
    "transformer.resblocks.": "encoder.layers.",
}
"""Beginnings of open_clip's names, and of transformers'."""
LAYER = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".attn.in_proj_": ".self_attn.in_proj.",
}


def _renamed(state: dict[str, Tensor], tower: Any) -> dict[str, Tensor]:
    found = {"visual_projection.weight": tower.projection.weight}
    for name, value in state.items():
        for before, after in PLACES.items():
            if name.startswith(before):
                name = f"vision_model.{after}{name.removeprefix(before)}"
                break
        for before, after in LAYER.items():
            name = name.replace(before, after)
        if ".in_proj." in name:
            for part, rows in zip(("q", "k", "v"), value.chunk(3), strict=True):
                found[name.replace("in_proj.", f"{part}_proj.")] = rows
        else:
            found[name] = value
    return found
