"""model_folder: looked through before a library opens it, so that nothing in it makes code run.

A folder in Hugging Face's layout holds more than weights: its JSON files can name code to fetch and
run, and files elsewhere. Libraries are told never to run code, too; this is the second lock.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hica.errors import WeightsError
from hica.storage import read_file

RUNS_CODE = ("trust_remote_code", "custom_pipelines", "custom_generate", "kernel_config")
"""Keys that make transformers run code that is not its own."""
MAY_NAME_A_KERNEL = ("attn_implementation", "experts_implementation")
"""Keys that may be a word that transformers knows, or the name of code on a hub."""
WEIGHT_MAP = "weight_map"
"""Of an index: which file holds a weight."""
LEADS_ELSEWHERE = "adapter_config.json"
"""It names another model, which would be loaded in place of this one."""


def look_through(folder: Path, key: str, root: Path | None = None) -> None:
    """Check that a model's folder holds nothing that runs code or leads out of it.

    `key` is the setting that names the folder, for the errors. Links may lead to files below
    `root`, by default the folder itself.

    Raises:
        WeightsError: Names the file, the key in it and the remedy.
    """
    inside = (root or folder).resolve()
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(inside):
            raise WeightsError(
                f"{path}: leads out of the folder that {key} names; put the file itself there"
            )
    if (folder / LEADS_ELSEWHERE).exists():
        raise WeightsError(
            f"{folder / LEADS_ELSEWHERE}: names another model to load; take the file out, or take "
            f"a whole model for {key}"
        )
    for path in sorted([*folder.glob("*config.json"), *folder.glob("*.index.json")]):
        for name, value in _entries(read_json(path)):
            if why := _problem(name, value):
                raise WeightsError(f"{path}: {name}: {why}; take the entry out, or another model")


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        WeightsError: It is missing or is not JSON.
    """
    try:
        return json.loads(read_file(path))
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {error.strerror}; fetch the whole folder of the model"
        ) from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({error}); fetch the model anew") from None


def _problem(name: str, value: Any) -> str:
    """What an entry would do; empty where it does nothing of the kind."""
    if name in RUNS_CODE and value not in (None, False, {}, []):
        return "would run code that comes with the model, which is never done"
    plain = value is None or (isinstance(value, str) and value.isidentifier())
    if name.removeprefix("_").removesuffix("_internal") in MAY_NAME_A_KERNEL and not plain:
        return "would fetch code from a hub, which is never run"
    if name == WEIGHT_MAP:
        files = value.values() if isinstance(value, dict) else [value]
        if not all(isinstance(file, str) and Path(file).name == file for file in files):
            return "names a file in another folder"
    return ""


def _entries(table: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested tables and lists."""
    waiting = [table]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
