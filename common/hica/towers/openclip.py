"""Towers of open_clip's contrastive pairs: built-in names, `hf-hub:…` and `local-dir:…`.

The transform comes with the weights (`visual.preprocess_cfg`), so that the two cannot drift apart.
Nothing that comes with a model runs code: see `hica.towers.openclip_config`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from hica import hub
from hica.below import below
from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.images.preprocess import Preprocess
from hica.model_folder import look_through, read_json
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.openclip_config import CONFIG, read_config
from hica.towers.preprocessing import transform
from hica.towers.reading import check_hash
from hica.towers.timm_tower import TimmTower
from hica.towers.weights import Wanted, draw_weights, fingerprint

LOCAL, HUB = "local-dir:", "hf-hub:"
_TEXTS = ("*.json", "*.txt", "*.model")
FILES = (
    (*_TEXTS, "open_clip_model.safetensors"),
    (*_TEXTS, "open_clip_pytorch_model.bin"),
)
"""What is fetched of a model on a hub: the second where there is none of the first."""
OF_A_TAG = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip takes of a tag's own settings for the transform."""


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
        WeightsError: Weights that are missing, of another hash or of another model.
        ConfigurationError: open_clip does not know the model, or its patches cannot be used.
    """
    source = _source(name, wanted, "model.image")
    visual: Any = _create(source, wanted).visual
    preprocess, sources = _preprocess(visual.preprocess_cfg, source, wanted)
    tower: ImageTower
    if isinstance(visual, VisionTransformer):
        tower = OpenCLIPImageTower(visual, name, preprocess)
    elif isinstance(visual, TimmModel) and "pool" not in dict(visual.head.named_children()):
        tower = TimmTower(visual.trunk, name, preprocess, projection=visual.head)
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
    return OpenCLIPTextTower(text, _tokenizer(source), name)


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
    def says_colours(self) -> bool:
        """Whether the folder's configuration has the mean and std of its weights."""
        if self.folder is None:
            return False
        said = read_json(self.folder / CONFIG).get("preprocess_cfg", {})
        return bool(said.get("mean") and said.get("std"))


def _source(name: str, wanted: Wanted, key: str) -> _Source:
    """Find a pair and read its configuration."""
    stay_offline()
    if name.startswith(LOCAL):
        folder = below(wanted.weights, name.removeprefix(LOCAL), key)
        if not (folder / CONFIG).is_file():
            raise WeightsError(
                f"{key}: {folder / CONFIG}: no such file; a local-dir:FOLDER below the folder of "
                f"weights needs {CONFIG}, weights and a tokenizer"
            )
        look_through(folder, key)
        return _Source(name, key, folder, read_config(folder, key))
    if name.startswith(HUB):
        folder = hub.model(name.removeprefix(HUB), FILES, wanted.hubs, key)
        return _Source(name, key, folder, read_config(folder, key))
    listed = name.replace("/", "-")
    if listed not in open_clip.list_models():
        raise ConfigurationError(
            f'model: "{name}" is not a model that open_clip knows; use tiny, timm/NAME, a name '
            f"from open_clip.list_models(), {HUB}OWNER/NAME@COMMIT or {LOCAL}FOLDER"
        )
    return _Source(name, key, None, open_clip.get_model_config(listed))


def _tokenizer(source: _Source) -> Any:
    """The pair's tokenizer, from its folder or from this machine; no code comes with it."""
    closed: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    from_transformers = bool(source.model["text_cfg"].get("hf_tokenizer_name"))
    try:
        tokenizer = open_clip.get_tokenizer(
            f"{LOCAL}{source.folder}" if source.folder else source.name,
            **(closed if from_transformers else {}),
        )
        # transformers makes an empty tokenizer, to which all words are one, of a missing file.
        one, two = tokenizer(["mass"]), tokenizer(["lungs"])
        problem = "it takes different words for the same" if one.equal(two) else ""
    except Exception as error:  # transformers and its hub raise many kinds
        problem = str(error)
    if problem:
        raise WeightsError(
            f"{source.name}: its tokenizer could not be loaded ({problem}); a {LOCAL}FOLDER needs "
            f"tokenizer.json beside {CONFIG}; it is taken from nowhere else"
        )
    return tokenizer


def _create(source: _Source, wanted: Wanted) -> Any:
    """The pair; weights from the checkpoint, else the folder or the tag, else the seed."""
    name, checkpoint = source.name, wanted.checkpoint
    if checkpoint is not None:
        check_hash(checkpoint, wanted.sha256)
    tag: dict[str, Any] = {}
    file: Path | None = None
    if checkpoint is None and source.folder is None and wanted.pretrained is not None:
        tag = open_clip.get_pretrained_cfg(name.replace("/", "-"), wanted.pretrained)
        file = _file_of_tag(tag, source, wanted)
    given = checkpoint is None and (source.folder is not None or file is not None)
    settings = source.model
    if source.folder is not None:
        # Nothing but what was checked: these go before what open_clip reads in the file again.
        vision = {**settings["vision_cfg"], "timm_model_pretrained": False}
        if wanted.image_size is not None:
            vision["image_size"] = wanted.image_size
        settings = {**settings, "vision_cfg": vision}
    try:
        with torch.random.fork_rng(devices=[]):
            pair = open_clip.create_model(
                f"{LOCAL}{source.folder}" if source.folder else name,
                pretrained=str(file) if file else None,
                load_weights=given,
                require_pretrained=given,
                pretrained_text=False,
                force_custom_text=True,
                force_image_size=wanted.image_size,
                force_preprocess_cfg={key: tag[key] for key in OF_A_TAG if key in tag},
                **(settings if source.folder else {}),
            )
            if checkpoint is not None:
                open_clip.load_checkpoint(pair, str(checkpoint), strict=True)
    except Exception as error:  # open_clip, transformers and the hub raise many kinds
        found = checkpoint or file or name
        raise WeightsError(
            f"{found}: no weights of {name} could be loaded ({error}); check {source.key}, or "
            f"put the whole folder of the model below the folder of weights and use {LOCAL}FOLDER"
        ) from None
    if checkpoint is None and not given:
        draw_weights(pair, wanted.seed)
    return pair


def _file_of_tag(tag: dict[str, Any], source: _Source, wanted: Wanted) -> Path:
    """The weights file of one of open_clip's tags, fetched if that is allowed, its hash checked."""
    owner_and_name, _, file = str(tag.get("hf_hub") or "").rpartition("/")
    if not owner_and_name:
        raise WeightsError(
            f'model.pretrained = "{wanted.pretrained}": no weights of {source.name} on a hub; '
            "fetch them elsewhere and give model.checkpoint and model.sha256"
        )
    files = [file] if file else [files[-1] for files in FILES]
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
