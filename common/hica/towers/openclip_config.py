"""`open_clip_config.json` of a folder: only keys that are listed here, each of its type and range.

open_clip hands what it finds there to constructors and to transformers: `tokenizer_kwargs` with
`trust_remote_code` runs code, a model's name of a hub fetches it. Whatever is not listed is refused
by name.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import timm
from open_clip.hf_configs import arch_dict
from pydantic import AfterValidator, ConfigDict, Field
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hica.errors import ConfigurationError, WeightsError
from hica.model_folder import read_json
from hica.study import Section, validated

CONFIG = "open_clip_config.json"

Side = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=512)]
Tokens = Annotated[int, Field(ge=1, le=65_536)]
Words = Annotated[int, Field(ge=1, le=4_000_000)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Ratio = Annotated[float, Field(gt=0.0, le=64.0)]
Small = Annotated[float, Field(ge=0.0, le=1.0)]


def _of_timm(name: str) -> str:
    if not timm.is_model(name):
        raise ValueError(f"{name!r} is no model that timm has; names of a hub are not taken")
    return name


class Table(Section):
    """A table of the file; numbers are numbers, and text is text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Norm(Table):
    """`norm_kwargs`."""

    eps: Annotated[float, Field(gt=0.0, le=1.0)] | None = None


class Activation(Table):
    """`act_kwargs`."""

    approximate: Literal["none", "tanh"] | None = None


class Attention(Table):
    """What image and text side have in common."""

    width: Width | None = None
    mlp_ratio: Ratio | None = None
    ls_init_value: Small | None = None
    output_tokens: bool | None = None
    final_ln_after_pool: bool | None = None
    act_kwargs: Activation | None = None
    norm_kwargs: Norm | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool | None = None
    scaled_cosine_attn: bool | None = None
    scale_heads: bool | None = None
    scale_attn_inner: bool | None = None
    scale_attn: bool | None = None
    scale_fc: bool | None = None


class Vision(Attention):
    """`vision_cfg`."""

    layers: Depth | Annotated[list[Depth], Field(min_length=4, max_length=4)] | None = None
    head_width: Width | None = None
    patch_size: Side | None = None
    image_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    patch_dropout: Share | None = None
    attentional_pool: bool | None = None
    attn_pooler_queries: Tokens | None = None
    attn_pooler_heads: Depth | None = None
    no_ln_pre: bool | None = None
    pos_embed_type: Literal["learnable", "sin_cos_2d"] | None = None
    pool_type: Literal["tok", "avg", "none"] | None = None
    timm_model_name: Annotated[str, AfterValidator(_of_timm)] | None = None
    timm_model_pretrained: bool | None = None
    """Not followed: weights come from the folder alone."""
    timm_pool: Literal["", "avg", "max", "token", "map", "abs_attn", "rot_attn"] | None = None
    timm_proj: Literal["", "linear", "mlp", "none"] | None = None
    timm_proj_bias: bool | None = None
    timm_drop: Share | None = None
    timm_drop_path: Share | None = None


class Cleaning(Table):
    """`tokenizer_kwargs`: how texts are cleaned before they are cut into tokens."""

    clean: Literal["lower", "whitespace", "canonicalize"] | None = None
    strip_sep_token: bool | None = None


class Text(Attention):
    """`text_cfg`."""

    context_length: Tokens | None = None
    vocab_size: Words | None = None
    heads: Width | None = None
    layers: Depth | None = None
    embed_cls: bool | None = None
    pad_id: Annotated[int, Field(ge=0, le=4_000_000)] | None = None
    eos_id: Annotated[int, Field(ge=0, le=4_000_000)] | None = None
    no_causal_mask: bool | None = None
    pool_type: Literal["argmax", "first", "last", "eos", "none"] | None = None
    proj_bias: bool | None = None
    proj_type: Literal["linear", "none"] | None = None
    tokenizer_mode: Literal["clips"] | None = None
    tokenizer_kwargs: Cleaning | None = None
    hf_tokenizer_name: Annotated[str, Field(max_length=1024)] | None = None
    """Not followed: where there is one, the tokenizer is that of the folder."""
    hf_model_name: Annotated[str, Field(max_length=1024)] | None = None
    """Not fetched: the text side is what `config.json` of the folder says, else what is known of a
    model of this name (`hica.towers.text_config`)."""
    hf_model_pretrained: bool | None = None
    """Not followed: weights come from the folder alone."""
    hf_proj_type: Literal["linear", "mlp"] | None = None
    hf_pooler_type: (
        Literal["mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"] | None
    ) = None


class Captions(Text):
    """`multimodal_cfg`: CoCa's decoder, which is built and not used."""

    dim_head: Width | None = None
    n_queries: Tokens | None = None
    attn_pooler_heads: Depth | None = None


class Model(Table):
    """`model_cfg`."""

    embed_dim: Width
    vision_cfg: Vision
    text_cfg: Text
    multimodal_cfg: Captions | None = None
    quick_gelu: bool | None = None
    custom_text: bool | None = None
    """Not followed: image and text side are always apart."""
    init_logit_scale: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    init_logit_bias: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    nonscalar_logit_scale: bool | None = None


class Preprocess(Table):
    """`preprocess_cfg`."""

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    mode: Literal["RGB"] | None = None
    mean: Annotated[list[Small], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Small], Field(min_length=3, max_length=3)] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


class File(Table):
    """The whole file."""

    model_cfg: Model
    preprocess_cfg: Preprocess = Preprocess()


def read_config(folder: Path, key: str) -> dict[str, Any]:
    """What open_clip's constructors are given of the file, by parameter.

    `key` is the setting that names the folder, which was looked through.

    Raises:
        WeightsError: The file is missing, has a key that is not listed, or a value out of range;
            or the text model is none that transformers has.
    """
    path = folder / CONFIG
    table = read_json(path)
    try:
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: no table; fetch the model anew")
        file = validated(File, table, str(path))
    except ConfigurationError as error:
        raise WeightsError(
            f"{error}\n{path} is read by these keys only ({key}): a model that needs others "
            "cannot be used; take the key out where it is not needed, or take another model"
        ) from None
    model = file.model_cfg.model_dump(exclude_unset=True)
    model.pop("custom_text", None)
    if model["text_cfg"].get("hf_model_name"):
        model["text_cfg"] |= {"hf_model_pretrained": False}
        if (folder / "config.json").is_file():
            _check_text_model(folder / "config.json")
    return model


def _check_text_model(path: Path) -> None:
    """Only a text model that transformers has code for itself.

    Raises:
        WeightsError: It is missing, or of another kind.
    """
    config = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in arch_dict or kind not in CONFIG_MAPPING:
        raise WeightsError(
            f"{path}: model_type = {kind!r}: not a text model that can be used, which are "
            f"{', '.join(arch_dict)}; code that comes with a model is never run"
        )
    if "auto_map" in config:
        raise WeightsError(
            f"{path}: auto_map: names code that comes with the model, which is never run; take the "
            "entry out, or another model"
        )
