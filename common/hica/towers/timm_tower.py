"""Image towers from timm: EfficientNet, MobileNet, ResNet, ConvNeXt, ViT, others.

A patch is what the model's head makes of that position alone, so that patches lie in the space of
whole images. Models that are not known here by their parts are one block: `adapter` and `full`
work with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hica import hub
from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower
from hica.towers.preprocessing import transform
from hica.towers.reading import check_hash, load_weights, read_weights
from hica.towers.weights import Colour, Wanted, draw_weights, fingerprint

HALF: Colour = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Parts:
    """A timm model taken apart: its features are tail(blocks(stem(images)))."""

    stem: Callable[[Tensor], Tensor]
    blocks: list[nn.Module]
    tail: list[nn.Module]
    head: list[nn.Module]
    """What `trunk.forward_head` makes embeddings with."""


def take_apart(trunk: Any) -> Parts:
    """The parts of a timm model; a new family is one more case here."""
    last: nn.Module = trunk.get_classifier()  # the identity, but in some contrastive pairs
    if isinstance(trunk, EfficientNet):
        stem = nn.Sequential(trunk.conv_stem, trunk.bn1)
        return Parts(stem, list(trunk.blocks), [trunk.conv_head, trunk.bn2], [last])
    if isinstance(trunk, MobileNetV3):  # its last convolution comes after pooling
        stem = nn.Sequential(trunk.conv_stem, trunk.bn1)
        return Parts(stem, list(trunk.blocks), [], [trunk.conv_head, trunk.norm_head, last])
    if isinstance(trunk, ResNet):
        stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.act1, trunk.maxpool)
        stages: list[Any] = [trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
        return Parts(stem, stages, [], [last])
    if isinstance(trunk, ConvNeXt):
        return Parts(trunk.stem, list(trunk.stages), [trunk.norm_pre], [trunk.head])
    if isinstance(trunk, VisionTransformer):
        pool = [] if trunk.attn_pool is None else [trunk.attn_pool]
        head = [*pool, trunk.fc_norm, last]
        return Parts(partial(_embed, trunk), list(trunk.blocks), [trunk.norm], head)
    return Parts(nn.Identity(), [_Features(trunk)], [], [last])


def _embed(trunk: Any, images: Tensor) -> Tensor:
    """A ViT's tokens before its first layer."""
    tokens: Tensor = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
    return tokens


class _Features(nn.Module):
    """A whole model as one block; it does not own the model, whose tower does."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self._run = trunk.forward_features

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self._run(images)
        return features


class TimmTower(ImageTower):
    """A timm model without its classifier; in a contrastive pair with what follows it there."""

    def __init__(
        self,
        trunk: Any,
        name: str,
        preprocess: Preprocess,
        projection: nn.Module | None = None,
        variant: str = "",
    ) -> None:
        """Wrap a model that holds its weights already.

        `projection`, the way into a joint space, is applied to embeddings row by row; `variant` is
        what else changes the output, for the fingerprint.

        Raises:
            ConfigurationError: Its features are not a square grid of patches.
        """
        super().__init__()
        self.name = name
        self.preprocess = preprocess
        self.trunk = trunk.eval()
        self.projection = projection or nn.Identity()
        self.fingerprint = fingerprint(f"{name} {variant} {preprocess}", self)
        with torch.no_grad():
            pooled, patches = self(torch.zeros(1, 3, preprocess.size, preprocess.size))
        self.dim = pooled.shape[-1]
        self.grid = round(patches.shape[1] ** 0.5)
        if self.grid**2 != patches.shape[1] or patches.shape[-1] != self.dim:
            raise ConfigurationError(
                f'model.image = "{name}": {patches.shape[1]} patches of width {patches.shape[-1]} '
                f"beside an image of width {self.dim} are no square grid in one space; "
                "use another model, for example timm/mobilenetv2_100 or timm/vit_tiny_patch16_224"
            )

    @property
    def blocks(self) -> list[nn.Module]:
        """EfficientNet, ResNet, ConvNeXt: the stages; ViT: the layers; others: all in one."""
        return take_apart(self.trunk).blocks

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to what the first block takes."""
        return take_apart(self.trunk).stem(images)

    def head(self, hidden: Tensor) -> Encoded:
        """What the last block returns to pooled and patches."""
        for module in take_apart(self.trunk).tail:
            hidden = module(hidden)
        pooled, patches = self._tokens(hidden) if hidden.ndim == 3 else self._map(hidden)
        return Encoded(self.projection(pooled), self.projection(patches))

    def head_modules(self) -> list[nn.Module]:
        """Last norm or convolution, the head and the projection."""
        parts = take_apart(self.trunk)
        return [*parts.tail, *parts.head, self.projection]

    def _map(self, features: Tensor) -> Encoded:
        """Feature maps [B, C, h, w], or [B, h, w, C]."""
        channels_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"
        rows = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        batch, count, channels = rows.shape
        single = (1, 1, channels) if channels_last else (channels, 1, 1)
        # Pooling leaves a map of one position as it is, so that only the head's weights act.
        patches = self.trunk.forward_head(rows.reshape(batch * count, *single))
        return Encoded(self.trunk.forward_head(features), patches.view(batch, count, -1))

    def _tokens(self, tokens: Tensor) -> Encoded:
        """Token states [B, prefix + N, C]."""
        pooled = self.trunk.forward_head(tokens)
        patches = tokens[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
        if not isinstance(self.trunk, VisionTransformer):
            return Encoded(pooled, patches)
        if self.trunk.attn_pool is not None:
            batch, count, _ = patches.shape
            alone = self.trunk.attn_pool(patches.flatten(0, 1).unsqueeze(1))
            patches = alone.view(batch, count, -1)
        return Encoded(pooled, self.trunk.head(self.trunk.fc_norm(patches)))


def load_timm(model: str, wanted: Wanted) -> TimmTower:
    """Build a timm tower.

    Raises:
        WeightsError: Weights that are missing, of another hash or of another model.
        ConfigurationError: timm does not know the model, or it does not take `pad_type`.
    """
    name = f"timm/{model}"
    model, _, tag = model.partition(".")
    tag = tag or wanted.pretrained or ""
    _check_name(model, tag)
    config: Any = timm.get_pretrained_cfg(f"{model}.{tag}" if tag else model)
    defaults = config.to_dict() if config is not None else {}
    arguments: dict[str, Any] = {"num_classes": 0}
    if defaults.get("fixed_input_size") and wanted.image_size is not None:
        arguments["img_size"] = wanted.image_size
    if wanted.pad_type:
        arguments["pad_type"] = wanted.pad_type
    stay_offline()
    if tag and wanted.checkpoint is None:
        trunk = _pretrained(f"{model}.{tag}", arguments, _file_of_tag(defaults, name, wanted))
    else:
        trunk = _created(model, arguments)
        draw_weights(trunk, wanted.seed)
    if wanted.checkpoint is not None:
        classifier = defaults.get("classifier") or "classifier"
        state = {
            key: value
            for key, value in read_weights(wanted.checkpoint, wanted.sha256).items()
            if not key.startswith(f"{classifier}.")
        }
        load_weights(trunk, state, wanted.checkpoint, name)
    own = {
        "size": defaults.get("input_size", (3, 224, 224))[-1],
        "mean": defaults.get("mean", HALF),
        "std": defaults.get("std", HALF),
        "interpolation": "bicubic" if defaults.get("interpolation") == "bicubic" else "bilinear",
        "resize": "squash",  # timm cuts out the middle; a lesion may lie at the edge
    }
    preprocess, sources = transform(
        wanted,
        own,
        f"timm's {model}.{tag}" if tag else f"timm's {model}",
        known=bool(tag) and wanted.checkpoint is None,
        drawn=not tag and wanted.checkpoint is None,
    )
    if wanted.resize is None:
        sources["resize"] = "HiCA's, for timm"
    tower = TimmTower(trunk, name, preprocess, variant=f"pad_type={wanted.pad_type}")
    tower.pad_type, tower.sources = wanted.pad_type, sources
    return tower


def _check_name(model: str, tag: str) -> None:
    if not timm.is_model(model):
        near = ", ".join(get_close_matches(model, timm.list_models(), n=5, cutoff=0.4))
        raise ConfigurationError(
            f'model.image = "timm/{model}": timm has no such model; near ones: {near or "none"}'
        )
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        raise ConfigurationError(
            f'model.pretrained = "{tag}": timm has no such weights of {model}; it has '
            + (", ".join(tags) or "none")
        )


def _created(model: str, arguments: dict[str, Any], weights: Path | None = None) -> nn.Module:
    """A timm model, with the weights of a file; torch's own generator is left where it was."""
    if weights is not None:
        overlay = {"file": str(weights), "custom_load": False}
        arguments = {**arguments, "pretrained": True, "pretrained_cfg_overlay": overlay}
    with torch.random.fork_rng(devices=[]):
        try:
            trunk: nn.Module = timm.create_model(model, **arguments)
        except TypeError as error:
            raise ConfigurationError(
                f'model.image = "timm/{model}" does not take these settings ({error}); '
                "remove model.pad_type or model.image_size"
            ) from None
    return trunk


def _pretrained(model: str, arguments: dict[str, Any], weights: Path) -> nn.Module:
    """A timm model with the weights of its tag, read from their file."""
    try:
        return _created(model, arguments, weights)
    except ConfigurationError:
        raise
    except Exception as error:  # timm raises many kinds
        raise WeightsError(
            f"{weights}: not weights of timm/{model} ({error}); give model.checkpoint and "
            "model.sha256"
        ) from None


def _file_of_tag(defaults: dict[str, Any], name: str, wanted: Wanted) -> Path:
    """The weights file of one of timm's tags, fetched if that is allowed, its hash checked."""
    key = f'model.image = "{name}", model.pretrained'
    repository = defaults.get("hf_hub_id")
    if not repository:
        raise WeightsError(
            f"{key}: no weights on a hub; fetch them elsewhere and give model.checkpoint and "
            "model.sha256"
        )
    files = [defaults.get("hf_hub_filename") or "model.safetensors"]
    path = hub.weights_file(str(repository), files, wanted.sha256, wanted.hubs, key)
    check_hash(path, wanted.sha256)
    return path
