"""A language model on disk: found, loaded and hashed.

Code that comes with a model is never run, and weights are read from safetensors only. From a hub
only a model that is named with its commit is fetched, where that is allowed; nothing of a study is
sent.
"""

import hashlib
from pathlib import Path
from typing import Any

from hica import hub
from hica.errors import CheckpointError, WeightsError
from hica.hub import stay_offline
from hica.model_folder import look_through

KEY = "--model"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf")
"""Other formats, some of which could run code."""


def folder_sha256(folder: Path) -> str:
    """Hash over names and hashes of a folder's files: `LC_ALL=C; sha256sum * | sha256sum` in it."""
    from hica.images.cache import file_sha256

    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def locate(name: str, hubs: bool = False) -> Path:
    """The folder of a model: itself, or the hub's copy on this machine, fetched if `hubs` allows.

    Raises:
        WeightsError: There is neither, or the folder holds what would run code; with the remedy.
    """
    if Path(name).is_dir():
        folder = Path(name).resolve()
        look_through(folder, KEY)
        return folder
    try:
        return hub.model(name, [("*", "*.safetensors")], hubs, KEY, left_out=OTHER_WEIGHTS)
    except WeightsError as error:
        raise WeightsError(
            f"{name}: no such folder, and no model of that name that can be used: correct {KEY}, "
            "or fetch the model where there is a network (hf download NAME --local-dir FOLDER) and "
            f"give its folder. {error}"
        ) from None


def load(folder: Path, name: str) -> tuple[Any, Any]:
    """Tokenizer and model, on a GPU where there is one.

    Raises:
        CheckpointError: Not safetensors, not a causal language model, or not a whole one.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hica.device import select_device

    stay_offline()
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{name}: no *.safetensors in its folder; other formats can run code when they are "
            "read: take a model that has them, or save it with save_pretrained()"
        )
    model_class: Any = AutoModelForCausalLM  # its types differ between versions of transformers
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model, info = model_class.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype="auto",
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds
        raise CheckpointError(
            f"{name}: cannot be loaded as a causal language model ({_first_line(error)}); its "
            "folder needs config.json, tokenizer.json and whole *.safetensors, and a model that "
            "comes with code of its own is not run: take another one"
        ) from None
    if missing := sorted(info["missing_keys"]):  # transformers would draw these at random
        raise CheckpointError(
            f"{name}: its weights lack {', '.join(missing[:3])}, so it is no whole causal language "
            "model; fetch it anew, or take another one"
        )
    return tokenizer, model.eval().to(select_device("auto"))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
