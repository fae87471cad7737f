"""Image towers from timm: EfficientNet, MobileNet, ResNet, ConvNeXt, ViT, others.

A patch is what the model's head makes of that position alone, so that patches lie in the space of
whole images. Models that are not known here by their parts are one block: `adapter` and `full`
work with them. A folder as timm's models have it on the hub is read like a file with its sidecar.
"""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hica import hub
from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower
from hica.towers.preprocessing import transform
from hica.towers.timm_checkpoint import load_checkpoint
from hica.towers.timm_folder import read_timm_config
from hica.towers.timm_parts import take_apart
from hica.towers.weights import Colour, Wanted, draw_weights, fingerprint

HALF: Colour = (0.5, 0.5, 0.5)


class TimmTower(ImageTower):
    """A timm model without its classifier; in a contrastive pair with what follows it there."""

    def __init__(
        self,
        trunk: Any,
        name: str,
        preprocess: Preprocess,
        projection: nn.Module | None = None,
        variant: str = "",
        identity: str | None = None,
    ) -> None:
        """Wrap a model that holds its weights already.

        `projection`, the way into a joint space, is applied to embeddings row by row; `variant` is
        what else changes the output, and `identity` what it is called, for the fingerprint.

        Raises:
            ConfigurationError: Its features are not a square grid of patches.
        """
        super().__init__()
        self.name = name
        self.preprocess = preprocess
        self.trunk = trunk.eval()
        self.projection = projection or nn.Identity()
        self.fingerprint = fingerprint(f"{identity or name} {variant} {preprocess}", self)
        try:
            with torch.no_grad():
                pooled, patches = self(torch.zeros(1, 3, preprocess.size, preprocess.size))
        except (AssertionError, RuntimeError, ValueError, IndexError) as error:
            raise ConfigurationError(
                f'model.image = "{name}": takes no images of {preprocess.size} pixels ({error}); '
                "correct model.image_size, or remove it"
            ) from None
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
        """Feature maps [B, C, h, w]."""
        channels_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"
        rows = features.flatten(2).transpose(1, 2)
        batch, count, channels = rows.shape
        single = (1, 1, channels) if channels_last else (channels, 1, 1)
        # Pooling leaves a map of one position as it is, so that only the head's weights act.
        patches = self.trunk.forward_head(rows.reshape(batch * count, *single))
        pooled = self.trunk.forward_head(
            features.permute(0, 2, 3, 1) if channels_last else features
        )
        return Encoded(pooled, patches.view(batch, count, -1))

    def _tokens(self, tokens: Tensor) -> Encoded:
        """Token states [B, prefix + N, C]."""
        pooled = self.trunk.forward_head(tokens)
        patches = tokens[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
        if not isinstance(self.trunk, VisionTransformer | Eva):
            return Encoded(pooled, patches)
        if self.trunk.attn_pool is not None:
            batch, count, _ = patches.shape
            alone = self.trunk.attn_pool(patches.flatten(0, 1).unsqueeze(1))
            patches = alone.view(batch, count, -1)
        heads = self.trunk.get_classifier()
        heads = heads if isinstance(heads, tuple) else (heads,)
        made = [head(self.trunk.fc_norm(patches)) for head in heads]  # DeiT: the mean of its two
        return Encoded(pooled, sum(made[1:], made[0]) / len(made))


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
    stay_offline()
    file, known = wanted.checkpoint, False
    if tag and file is None:
        file, known = _file_of_tag(defaults, name, wanted), True
    source = f"timm's {model}.{tag}" if tag else f"timm's {model}"
    return _built(name, model, {}, defaults, file, wanted, source, known)


def load_timm_folder(name: str, folder: Path, weights: Path, wanted: Wanted) -> TimmTower:
    """Build the tower of a folder as timm's models have it on the hub, which was looked through.

    Raises:
        WeightsError: A configuration that cannot be used, or weights of another model.
        ConfigurationError: The model cannot be cut into patches, or does not take the settings.
    """
    model, settings, arguments = read_timm_config(folder, "model.image")
    wanted = replace(wanted, sha256=None)  # of the whole folder, which was checked
    source = f"config.json of {name}"
    return _built(f"timm/{model}", model, arguments, settings, weights, wanted, source, known=True)


def _built(
    name: str,
    model: str,
    arguments: dict[str, Any],
    settings: Mapping[str, Any],
    file: Path | None,
    wanted: Wanted,
    source: str,
    known: bool,
) -> TimmTower:
    """A tower of timm's `model`, with the weights of a file or drawn ones."""
    arguments = {**arguments, "num_classes": 0}
    takes_size = settings.get("fixed_input_size") or "img_size" in arguments
    if takes_size and wanted.image_size is not None:
        arguments["img_size"] = wanted.image_size
    if wanted.pad_type:
        arguments["pad_type"] = wanted.pad_type
    trunk = _created(model, arguments)
    if file is None:
        draw_weights(trunk, wanted.seed)
    else:
        load_checkpoint(trunk, file, wanted.sha256, name)
    own = {
        "size": settings.get("input_size", (3, 224, 224))[-1],
        "mean": settings.get("mean", HALF),
        "std": settings.get("std", HALF),
        "interpolation": "bicubic" if settings.get("interpolation") == "bicubic" else "bilinear",
        "resize": "squash",  # timm cuts out the middle; a lesion may lie at the edge
    }
    preprocess, sources = transform(wanted, own, source, known=known, drawn=file is None)
    if wanted.resize is None:
        sources["resize"] = "HiCA's, for timm"
    tower = TimmTower(trunk, name, preprocess, variant=f"pad_type={wanted.pad_type}")
    tower.pad_type, tower.sources = wanted.pad_type, sources
    tower.built_from = {"architecture": model, "arguments": arguments}
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


def _created(model: str, arguments: dict[str, Any]) -> nn.Module:
    """A timm model without weights; torch's own generator is left where it was."""
    with torch.random.fork_rng(devices=[]):
        try:
            trunk: nn.Module = timm.create_model(model, **arguments)
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f'model.image = "timm/{model}" does not take these settings ({error}); '
                "remove model.pad_type or model.image_size"
            ) from None
    return trunk


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
    return hub.weights_file(str(repository), files, wanted.sha256, wanted.hubs, key)
