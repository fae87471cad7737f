"""Towers of open_clip's contrastive pairs: built-in names, `hf-hub:…` and `local-dir:…`.

The transform comes with the weights (`visual.preprocess_cfg`), so that the two cannot drift apart.
"""

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from hica.errors import CheckpointError, ConfigurationError
from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.timm_tower import TimmTower
from hica.towers.weights import Colour, Wanted, check_hash, draw_weights, fingerprint


class OpenCLIPImageTower(ImageTower):
    """open_clip's own ViT. Its patch tokens, which it leaves unprojected, go the image token's way.

    The projection, a raw parameter there, becomes a Linear layer, which LoRA and DP-SGD can handle.
    """

    def __init__(self, visual: VisionTransformer, name: str, preprocess: Preprocess) -> None:
        """Wrap a ViT that holds its weights already.

        Raises:
            ConfigurationError: It pools by attention (CoCa), so that its patches have no place in
                the joint space, or its patches form no square.
        """
        super().__init__()
        rows, columns = visual.grid_size
        if visual.attn_pool is not None or visual.proj is None or rows != columns:
            raise ConfigurationError(
                f'model.image = "{name}": patches of a CoCa tower, of one without projection or of '
                "one that is not square cannot be placed beside its images; use a CLIP model"
            )
        self.name = name
        self.preprocess = preprocess
        self.grid = rows
        width, self.dim = visual.proj.shape
        self.projection = nn.Linear(width, self.dim, bias=False, device="meta")
        self.projection.weight = nn.Parameter(visual.proj.detach().T.contiguous())
        visual.proj = None
        self.visual = visual.eval()
        self.fingerprint = fingerprint(f"{name} {preprocess}", self)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's layers."""
        return list(self.visual.transformer.resblocks)

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to tokens [B, 1 + N, width]."""
        tokens: Tensor = self.visual._embeds(images)
        return tokens

    def head(self, hidden: Tensor) -> Encoded:
        """[B, 1 + N, width] to pooled and patches."""
        pooled, _ = self.visual._pool(hidden)
        patches = self.visual.ln_post(hidden[:, 1:])
        return Encoded(self.projection(pooled), self.projection(patches))

    def head_modules(self) -> list[nn.Module]:
        """The last norm and the projection."""
        return [self.visual.ln_post, self.projection]


class OpenCLIPTextTower(TextTower):
    """The text side of a pair: CLIP's transformer, or a Hugging Face encoder (BiomedCLIP)."""

    text: Any

    def __init__(self, text: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.text = text.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.dim = text.output_dim
        self.hugging_face = isinstance(text, HFTextEncoder)
        self.pad_id = text.config.pad_token_id if self.hugging_face else text.pad_id
        self.causal = not self.hugging_face and text.attn_mask is not None

    @property
    def token_embedding(self) -> Tensor:
        """[vocabulary, width]."""
        if self.hugging_face:
            weight: Tensor = self.text.transformer.get_input_embeddings().weight
        else:
            weight = self.text.token_embedding.weight
        return weight

    def tokenize(self, texts: list[str]) -> Tensor:
        """The pair's own tokens, padded to its context length; long [B, L]."""
        tokens: Tensor = self.tokenizer(texts)
        return tokens

    def token_states(self, tokens: Tensor) -> Tensor:
        """[B, L, width]."""
        if self.hugging_face:
            attended = (tokens != self.pad_id).long()
            states: Tensor = self.text.transformer(
                input_ids=tokens, attention_mask=attended
            ).last_hidden_state
            return states
        hidden, mask = self.text._embeds(tokens)
        states = self.text.ln_final(self.text.transformer(hidden, attn_mask=mask))
        return states[:, : tokens.shape[1]]

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, dim]."""
        sentences: Tensor = self.text(tokens)
        return sentences


def load_image(name: str, wanted: Wanted) -> ImageTower:
    """Build the image side of a pair.

    Raises:
        CheckpointError: Weights that are missing, of another hash or of another model.
        ConfigurationError: open_clip does not know the model, or its patches cannot be used.
    """
    pair = _create(
        name, wanted.pretrained, wanted.checkpoint, wanted.sha256, wanted.image_size, wanted.seed
    )
    visual: Any = pair.visual
    preprocess = _preprocess(visual.preprocess_cfg, name, wanted.mean, wanted.std)
    if isinstance(visual, VisionTransformer):
        return OpenCLIPImageTower(visual, name, preprocess)
    if isinstance(visual, TimmModel) and "pool" not in dict(visual.head.named_children()):
        return TimmTower(visual.trunk, name, preprocess, projection=visual.head)
    raise ConfigurationError(
        f'model.image = "{name}": patches of a {type(visual).__name__} cannot be placed in the '
        "joint space; use a CLIP with a ViT, for example ViT-B-16"
    )


def load_text(
    name: str,
    *,
    pretrained: str | None,
    checkpoint: Path | None,
    sha256: str | None,
    seed: int,
) -> OpenCLIPTextTower:
    """Build the text side of a pair; arguments as in `hica.towers.load_text_tower`.

    Raises:
        CheckpointError: Weights or a tokenizer that are missing, or of another model.
        ConfigurationError: open_clip does not know the model.
    """
    text = _create(name, pretrained, checkpoint, sha256, None, seed).text
    return OpenCLIPTextTower(text, _tokenizer(name), name)


def _tokenizer(name: str) -> Any:
    try:
        tokenizer = open_clip.get_tokenizer(name)
        # transformers makes an empty tokenizer, to which all words are one, of a missing file.
        one, two = tokenizer(["mass"]), tokenizer(["lungs"])
        problem = "it takes different words for the same" if one.equal(two) else ""
    except Exception as error:  # transformers and its hub raise many kinds
        problem = str(error)
    if problem:
        raise CheckpointError(
            f"{name}: its tokenizer could not be loaded ({problem}); "
            "a local-dir: needs tokenizer.json beside open_clip_config.json"
        )
    return tokenizer


def _create(
    name: str,
    pretrained: str | None,
    checkpoint: Path | None,
    sha256: str | None,
    image_size: int | None,
    seed: int,
) -> Any:
    """The pair; weights from `checkpoint`, else the name's folder or `pretrained`, else `seed`."""
    if checkpoint is not None:
        check_hash(checkpoint, sha256)
    has_scheme = name.startswith(("hf-hub:", "local-dir:"))
    if not has_scheme and name.replace("/", "-") not in open_clip.list_models():
        raise ConfigurationError(
            f'model: "{name}" is not a model that open_clip knows; use tiny, timm/NAME, a name '
            "from open_clip.list_models(), hf-hub:OWNER/NAME or local-dir:FOLDER"
        )
    fetched = checkpoint is None and (has_scheme or pretrained is not None)
    try:
        with torch.random.fork_rng(devices=[]):
            pair = open_clip.create_model(
                name,
                pretrained=None if has_scheme or not fetched else pretrained,
                load_weights=fetched,
                require_pretrained=fetched,
                pretrained_text=False,
                force_custom_text=True,
                force_image_size=image_size,
            )
            if checkpoint is not None:
                open_clip.load_checkpoint(pair, str(checkpoint), strict=True)
    except Exception as error:  # open_clip, transformers and the hub raise many kinds
        source = checkpoint or (f"{name}, {pretrained}" if pretrained else name)
        raise CheckpointError(
            f"{source}: no weights of {name} could be loaded ({error}); check the name, the tag "
            "and the network, or fetch the folder elsewhere and use local-dir:FOLDER"
        ) from None
    if checkpoint is None and not fetched:
        draw_weights(pair, seed)
    return pair


def _preprocess(
    config: dict[str, Any], name: str, mean: Colour | None, std: Colour | None
) -> Preprocess:
    """open_clip's transform at inference as ours; `mean` and `std` of the study go before."""
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ConfigurationError(
            f'model.image = "{name}": takes images of {size} pixels; only square ones are supported'
        )
    return Preprocess(
        sides.pop(),
        mean or tuple(config["mean"]),
        std or tuple(config["std"]),
        "bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        config["resize_mode"],
    )
