"""hub_layouts: `hf:FOLDER`: what lies in a folder of the hub's layout decides who loads it.

| in the folder | loaded by |
|---|---|
| `config.json` with `model_type` clip, siglip, siglip2 | transformers |
| `open_clip_config.json` | open_clip |
| `config.json` with `architecture` | timm |
| `config.json` with `model_type` bert and its kin | transformers, as a text tower alone |
"""

from pathlib import Path

from hica import hub
from hica.errors import ConfigurationError
from hica.model_folder import read_json
from hica.towers import hugging_face, openclip, openclip_source, sentence_tower, timm_tower
from hica.towers.base import ImageTower, TextTower
from hica.towers.folders import weights_in
from hica.towers.hugging_face_config import CONFIG, KINDS
from hica.towers.openclip_config import CONFIG as OF_OPEN_CLIP
from hica.towers.sentence_config import is_encoder
from hica.towers.timm_folder import is_timm
from hica.towers.weights import Wanted

FILES = hugging_face.FILES
"""What is fetched of a model on a hub."""


def load_image(name: str, wanted: Wanted) -> ImageTower:
    """Build the image tower of `hf:…`.

    Raises:
        WeightsError: A folder that is missing or another one, or a model that cannot be used.
        ConfigurationError: A setting that such a folder decides itself, or patches that have no
            place beside images.
    """
    if wanted.checkpoint is not None or wanted.pretrained is not None or wanted.pad_type:
        raise ConfigurationError(
            f'model.image = "{name}": its weights and settings are those of the folder; remove '
            "model.checkpoint, model.pretrained and model.pad_type"
        )
    folder = hugging_face.hub_folder(name, wanted, "model.image")
    if _is_open_clip(folder):
        return openclip.load_image(_of_open_clip(name), wanted)
    weights = hugging_face.checked_weights(name, folder, wanted, "model.image")
    if is_timm(folder):
        return timm_tower.load_timm_folder(name, folder, weights, wanted)
    return hugging_face.load_image(name, folder, weights, wanted)


def load_text(name: str, wanted: Wanted) -> TextTower:
    """Build the text tower of `hf:…`.

    Raises:
        WeightsError: A folder that is missing, or a model that cannot be used.
        ConfigurationError: The model has no text side.
    """
    folder = hugging_face.hub_folder(name, wanted, "model.text")
    if _is_open_clip(folder):
        return openclip.load_text(_of_open_clip(name), wanted)
    if is_timm(folder):
        raise ConfigurationError(
            f'model.text = "{name}": a model of timm has no text side; use model.text = "tiny", or '
            "a folder of a pair"
        )
    if is_encoder(folder):
        weights = hugging_face.checked_weights(
            name, folder, wanted, "model.text", sentence_tower.WEIGHTS
        )
        return sentence_tower.load_sentence_tower(name, folder, weights)
    weights = hugging_face.checked_weights(name, folder, wanted, "model.text")
    return hugging_face.load_text(name, folder, weights)


def weights_of(folder: Path, key: str) -> Path:
    """The weights file of a folder, as its loader takes it.

    Raises:
        WeightsError: There is none.
    """
    files = openclip_source.WEIGHTS if _is_open_clip(folder) else hugging_face.WEIGHTS
    return weights_in(folder, files, key)


def has_text_side(image: str, folder: Path | None = None) -> bool:
    """Whether an image tower by its name is one side of a pair; of `hf:…` its folder."""
    if folder is not None:
        return _is_open_clip(folder) or not is_timm(folder)
    return image != "tiny" and not image.startswith("timm/")


def _is_open_clip(folder: Path) -> bool:
    if not (folder / OF_OPEN_CLIP).is_file():
        return False
    if not (folder / CONFIG).is_file():
        return True
    table = read_json(folder / CONFIG)
    return not isinstance(table, dict) or table.get("model_type") not in KINDS


def _of_open_clip(name: str) -> str:
    """The name as open_clip's loader has it."""
    place = name.removeprefix(hugging_face.PREFIX)
    return f"{openclip_source.HUB if hub.PINNED.fullmatch(place) else openclip_source.LOCAL}{place}"
