"""openclip_source: where a pair of open_clip comes from, and its tokenizer; never code."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer

from hica import hub
from hica.errors import ConfigurationError, WeightsError
from hica.hub import stay_offline
from hica.model_folder import look_through, read_json
from hica.towers.folders import TEXTS, has_words, model_folder
from hica.towers.openclip_config import CONFIG, read_config
from hica.towers.text_config import check_text_side
from hica.towers.weights import Wanted

LOCAL, HUB = "local-dir:", "hf-hub:"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
)
"""Weights of a folder; the first there is."""
FILES = ((*TEXTS, WEIGHTS[0]), (*TEXTS, WEIGHTS[2]))
"""What is fetched of a model on a hub: the second where there is none of the first."""


@dataclass(frozen=True)
class Source:
    """Where a pair comes from: a folder that was looked through, or open_clip's own list."""

    name: str
    """As the study has it."""
    key: str
    """The setting that has it."""
    folder: Path | None
    model: dict[str, Any]
    """Parameters of its constructor."""

    @property
    def on_hub(self) -> bool:
        """Whether its folder lies in the hub's cache, where files are links."""
        return bool(self.folder) and hub.PINNED.fullmatch(self.name.partition(":")[2]) is not None

    @property
    def identity(self) -> str | None:
        """What it is called in a fingerprint: not by its folder, which is another at each site."""
        return "open_clip" if self.folder else None

    @property
    def says_colours(self) -> bool:
        """Whether the folder's configuration has the mean and std of its weights."""
        if self.folder is None:
            return False
        said = read_json(self.folder / CONFIG).get("preprocess_cfg", {})
        return bool(said.get("mean") and said.get("std"))


def find_source(name: str, wanted: Wanted, key: str) -> Source:
    """Find a pair and read its configuration."""
    stay_offline()
    if name.startswith((LOCAL, HUB)):
        place = name.removeprefix(LOCAL).removeprefix(HUB)
        if name.startswith(HUB):
            folder = hub.model(place, FILES, wanted.hubs, key)
        else:
            folder = model_folder(place, FILES, wanted, key)
        if not (folder / CONFIG).is_file():
            raise WeightsError(
                f"{key}: {folder / CONFIG}: no such file; a {LOCAL}FOLDER below the folder of "
                f"weights needs {CONFIG}, weights and a tokenizer; of a folder in the layout of "
                "transformers or timm write hf:FOLDER"
            )
        model = read_config(folder, key)
        check_text_side(folder, model["text_cfg"].get("hf_model_name"))
        return Source(name, key, folder, model)
    listed = name.replace("/", "-")
    if listed not in open_clip.list_models():
        raise ConfigurationError(
            f'model: "{name}" is not a model that open_clip knows; use tiny, timm/NAME, a name '
            f"from open_clip.list_models(), {HUB}OWNER/NAME@COMMIT or {LOCAL}FOLDER"
        )
    return Source(name, key, None, open_clip.get_model_config(listed))


def load_tokenizer(source: Source, wanted: Wanted) -> Any:
    """The pair's tokenizer, from its folder or from beside its weights; no code comes with it."""
    closed: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    text = source.model["text_cfg"]
    from_transformers = bool(text.get("hf_tokenizer_name"))
    folder = source.folder
    if folder is None and wanted.checkpoint is not None:
        beside = wanted.checkpoint.parent
        folder = beside if (beside / "tokenizer.json").is_file() else None
    try:
        if from_transformers and folder is not None:
            look_through(folder, source.key, folder.parents[1] if source.on_hub else None)
            tokenizer = HFTokenizer(
                str(folder),
                context_length=text.get("context_length", 77),
                tokenizer_mode=text.get("tokenizer_mode"),
                **(text.get("tokenizer_kwargs") or {}),
                **closed,
            )
        else:
            name = f"{LOCAL}{folder}" if source.folder else source.name
            tokenizer = open_clip.get_tokenizer(name, **(closed if from_transformers else {}))
        one, two = tokenizer(["mass"]), tokenizer(["bone"])
        problem = "it takes different words for the same" if one.equal(two) else ""
        if from_transformers and folder is not None and not has_words(folder):
            problem = "its words are missing"
    except WeightsError:
        raise
    except Exception as error:  # transformers and its hub raise many kinds
        problem = str(error).strip().partition("\n")[0]
    if problem:
        raise WeightsError(
            f"{source.name}: its tokenizer could not be loaded ({problem}); put tokenizer.json and "
            f"tokenizer_config.json beside {CONFIG} in a {LOCAL}FOLDER, or beside the file of "
            "model.checkpoint; they are taken from nowhere else"
        )
    return tokenizer
