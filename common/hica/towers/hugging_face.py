"""Image and text towers of a folder in the hub's layout: `hf:FOLDER`, `hf:OWNER/NAME@COMMIT`.

What lies there decides who loads it: transformers (CLIP, SigLIP, SigLIP 2), open_clip or timm. From
transformers a pair is taken apart into stem, blocks and head; its code is transformers' own, and
none that comes with the model is run.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.images.preprocess import Preprocess
from hica.printable import plain
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.folders import TEXTS, check_pin, has_words, model_folder, weights_in
from hica.towers.hugging_face_config import PROCESSORS, read_kind, read_transform
from hica.towers.preprocessing import transform
from hica.towers.reading import names, refuse_not_finite
from hica.towers.weights import Wanted, fingerprint

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


class HuggingFaceImageTower(ImageTower):
    """The image side of CLIP, SigLIP or SigLIP 2.

    A patch is what the head makes of that position alone: CLIP's norm and projection, or SigLIP's
    attention of its probe to that patch.
    """

    def __init__(
        self, vision: Any, projection: nn.Module, name: str, kind: str, preprocess: Preprocess
    ) -> None:
        """Wrap an image side that holds its weights already.

        Raises:
            ConfigurationError: It has no head, or takes no images of this size.
        """
        super().__init__()
        side = vision.config.patch_size
        if kind != "clip" and not vision.use_head:
            raise ConfigurationError(
                f'model.image = "{name}": vision_use_head = false: it makes no embedding of a '
                "whole image; use another model"
            )
        if preprocess.size % side:
            raise ConfigurationError(
                f'model.image = "{name}": takes no images of {preprocess.size} pixels; '
                f"model.image_size must be a multiple of {side}"
            )
        self.name, self.kind = name, kind
        self.preprocess = preprocess
        self.grid = preprocess.size // side
        self.vision, self.projection = vision.eval(), projection
        self.fingerprint = fingerprint(f"transformers {kind} {preprocess}", self)
        with torch.no_grad():
            self.dim = self(torch.zeros(1, 3, preprocess.size, preprocess.size)).pooled.shape[1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's layers."""
        return [_Layer(layer) for layer in self.vision.encoder.layers]

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to tokens [B, N, width], of CLIP with the image's own in front."""
        if self.kind == "siglip2":
            tokens: Tensor = self.vision.embeddings(self._cut(images), self._shapes(images))
            return tokens
        resampled = self.preprocess.size != self.vision.embeddings.image_size
        tokens = self.vision.embeddings(images, interpolate_pos_encoding=resampled)
        # transformers' own spelling
        return self.vision.pre_layrnorm(tokens) if self.kind == "clip" else tokens

    def head(self, hidden: Tensor) -> Encoded:
        """Tokens to pooled and patches."""
        states = self.vision.post_layernorm(hidden)
        if self.kind == "clip":
            return Encoded(self.projection(states[:, 0]), self.projection(states[:, 1:]))
        alone = self.vision.head(states.flatten(0, 1).unsqueeze(1))
        return Encoded(self.vision.head(states), alone.view(*states.shape[:2], -1))

    def head_modules(self) -> list[nn.Module]:
        """The last norm, and CLIP's projection or SigLIP's pooling."""
        pool = self.projection if self.kind == "clip" else self.vision.head
        return [self.vision.post_layernorm, pool]

    def _cut(self, images: Tensor) -> Tensor:
        """Patches as SigLIP 2 takes them: [B, 3, S, S] to [B, N, side · side · 3]."""
        batch, side = len(images), self.vision.config.patch_size
        cells = images.reshape(batch, 3, self.grid, side, self.grid, side)
        return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, self.grid**2, -1)

    def _shapes(self, images: Tensor) -> Tensor:
        return torch.tensor([[self.grid, self.grid]] * len(images))


class _Layer(nn.Module):
    """A layer by itself; made anew at every look: the image side owns the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        # Layers of transformers 4 have to be given one more.
        masks = {"attention_mask", "causal_attention_mask"}
        self.masks = dict.fromkeys(masks & inspect.signature(layer.forward).parameters.keys())

    def forward(self, tokens: Tensor) -> Tensor:
        made = self.layer(tokens, **self.masks)
        states: Tensor = made[0] if isinstance(made, tuple) else made
        return states


class HuggingFaceTextTower(TextTower):
    """The text side of CLIP, SigLIP or SigLIP 2."""

    def __init__(
        self, text: Any, projection: nn.Module, tokenizer: Any, name: str, kind: str
    ) -> None:
        super().__init__()
        self.text, self.projection = text.eval(), projection
        self.tokenizer = tokenizer
        self.name = name
        self.causal = kind == "clip"
        # CLIP only looks back, and its padding may be its end; SigLIP was trained to look at it.
        self.masked = kind != "clip" and "attention_mask" in tokenizer.model_input_names
        self.pad_id = self.tokenizer.pad_token_id
        self.length = text.config.max_position_embeddings
        outputs = getattr(projection, "out_features", None)
        self.dim = outputs or text.config.projection_size

    @property
    def token_embedding(self) -> Tensor:
        """[vocabulary, width]."""
        weight: Tensor = self.text.get_input_embeddings().weight
        return weight

    def tokenize(self, texts: list[str]) -> Tensor:
        """The pair's own tokens, padded to its context length; long [B, L]."""
        tokens: Tensor = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).input_ids
        return tokens

    def token_states(self, tokens: Tensor) -> Tensor:
        """[B, L, width]."""
        states: Tensor = self._run(tokens).last_hidden_state
        return states

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, dim]."""
        sentences: Tensor = self.projection(self._run(tokens).pooler_output)
        return sentences

    def _run(self, tokens: Tensor) -> Any:
        mask = (tokens != self.pad_id).long() if self.masked else None
        return self.text(input_ids=tokens, attention_mask=mask)


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
    said = read_transform(folder, size, name)
    if said and said["size"] != size and wanted.image_size is None:
        raise ConfigurationError(
            f'model.image = "{name}": its images have {said["size"]} pixels by {PROCESSORS[0]}, '
            f"and {size} by config.json; correct one of the two, or set model.image_size"
        )
    half = (0.5, 0.5, 0.5)
    own = said or {
        "size": size,
        "mean": half,
        "std": half,
        "interpolation": "bicubic",
        "resize": "squash",
    }
    preprocess, sources = transform(
        wanted, own, f"{PROCESSORS[0]} of {name}", known=bool(said), drawn=False
    )
    projection = pair.visual_projection if kind == "clip" else nn.Identity()
    tower = HuggingFaceImageTower(pair.vision_model, projection, name, kind, preprocess)
    tower.sources = sources
    return tower


def load_text(name: str, folder: Path) -> HuggingFaceTextTower:
    """Build the text side of a pair in a folder.

    Raises:
        WeightsError: A model that is not known, weights that are of another one, no tokenizer.
    """
    kind = read_kind(folder, "model.text")
    pair = _pair(folder, kind, weights_in(folder, WEIGHTS, "model.text"))
    projection = pair.text_projection if kind == "clip" else nn.Identity()
    return HuggingFaceTextTower(pair.text_model, projection, _tokenizer(folder), name, kind)


def _pair(folder: Path, kind: str, weights: Path) -> Any:
    """Both sides, by transformers' own code."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = {
        "clip": transformers.CLIPModel,
        "siglip": transformers.SiglipModel,
        "siglip2": getattr(transformers, "Siglip2Model", None),
    }[kind]
    if model is None:
        raise WeightsError(f"{folder}: model_type = {kind!r}: needs a newer transformers")
    source: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": False,
        "attn_implementation": "sdpa",
        "use_safetensors": ".safetensors" in weights.name,
    }
    try:
        with torch.random.fork_rng(devices=[]):  # must not move the caller's seed
            pair, found = model.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **source
            )
    except Exception as error:  # transformers raises many kinds
        why = plain(str(error).strip().partition("\n")[0][:300]) or type(error).__name__
        raise WeightsError(
            f"{folder}: transformers cannot load this {kind} model ({why}); fetch the whole folder "
            "anew"
        ) from None
    unused = ("position_ids", "logit_scale", "logit_bias")  # of older releases, of training only
    problems = []
    for words, group in (
        ("missing", "missing_keys"),
        ("unexpected", "unexpected_keys"),
        ("of another shape", "mismatched_keys"),
    ):
        keys = [key if isinstance(key, str) else key[0] for key in found.get(group) or ()]
        if keys := [key for key in keys if not key.endswith(unused)]:
            problems.append(f"{words}: {names(sorted(keys))}")
    if problems:
        raise WeightsError(
            f"{weights}: not weights of the {kind} model in {folder / 'config.json'}\n  "
            + "\n  ".join(problems)
            + "\nfetch the whole folder anew"
        )
    refuse_not_finite(pair.state_dict(), weights)
    return pair


def _tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; it is taken from nowhere else, and no code comes with it."""
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


def checked_weights(name: str, folder: Path, wanted: Wanted) -> Path:
    """The weights file of an image tower's folder, after the folder's hash was checked.

    Raises:
        WeightsError: There is none, or the folder is another one or not pinned.
    """
    weights = weights_in(folder, WEIGHTS, "model.image")
    check_pin(name.removeprefix(PREFIX), folder, weights, wanted, "model.image")
    return weights
