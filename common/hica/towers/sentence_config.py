"""sentence_config: a folder of a sentence encoder: which model, how its tokens become a sentence.

What sentence-transformers writes beside a model (`modules.json`, `1_Pooling/config.json`,
`sentence_bert_config.json`) is read here, without that library; code that it names is never run.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from hica.errors import WeightsError
from hica.model_folder import read_json
from hica.printable import plain
from hica.towers.folders import POOLING
from hica.towers.hugging_face_config import CONFIG

KINDS = (
    "albert",
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""`model_type` of the encoders that can be used, all of transformers' own code."""
MODULES = "modules.json"
LIMITS = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
STEPS = ("Transformer", "Pooling", "Normalize")
"""What a sentence may go through; lengths do not matter here, where all is normalised."""
PREFIX = "pooling_mode_"
MODES: dict[str, Literal["mean", "cls"]] = {"mean_tokens": "mean", "cls_token": "cls"}


class SentenceConfig(NamedTuple):
    """How a folder's model makes an embedding of a sentence."""

    pooling: Literal["mean", "cls"]
    longest: int | None
    """Tokens of a sentence, at most; None: as the tokenizer and the model have it."""
    lower: bool
    """Whether letters are made small before the tokenizer."""


def is_encoder(folder: Path) -> bool:
    """Whether a folder has a text encoder that is no side of a pair."""
    if not (folder / CONFIG).is_file():
        return False
    table = read_json(folder / CONFIG)
    return isinstance(table, dict) and table.get("model_type") in KINDS


def read_sentence_config(folder: Path) -> SentenceConfig:
    """How sentences are embedded, by the folder's own files; without any, mean pooling.

    Raises:
        WeightsError: A file that cannot be read, code of its own, or a way that is not offered.
    """
    if "auto_map" in _table(folder / CONFIG):
        raise WeightsError(
            f"{folder / CONFIG}: auto_map: names code that comes with the model, which is never "
            "run; take the entry out, or another model"
        )
    limits = _table(folder / LIMITS)
    prompts = _table(folder / PROMPTS)
    if prompts.get("default_prompt_name") is not None:
        raise WeightsError(
            f"{folder / PROMPTS}: default_prompt_name: this model puts words before each sentence, "
            "which is not offered here; take a model without"
        )
    longest = limits.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 3):
        raise WeightsError(
            f"{folder / LIMITS}: max_seq_length: expected a whole number of tokens, at least 3; "
            "fetch the file anew"
        )
    pooling = _pooling(folder / POOLING) if _is_pooled(folder) else "mean"
    return SentenceConfig(pooling, longest, limits.get("do_lower_case") is True)


def _is_pooled(folder: Path) -> bool:
    """Whether the folder says how it pools; refuses a step that is not offered."""
    if not (folder / MODULES).is_file():
        return (folder / POOLING).is_file()
    modules = read_json(folder / MODULES)
    try:
        steps = [(str(step["type"]).rpartition(".")[2], str(step["path"])) for step in modules]
    except (TypeError, KeyError):
        raise WeightsError(
            f"{folder / MODULES}: expected a list of steps with type and path; fetch it anew"
        ) from None
    pooling = POOLING.partition("/")[0]
    paths = {"Transformer": ("", "0_Transformer"), "Pooling": (pooling,)}
    for kind, path in steps:
        if kind not in STEPS or path not in paths.get(kind, (path,)):
            raise WeightsError(
                f"{folder / MODULES}: a step {plain(kind[:80])!r} in {plain(path[:80])!r}, which "
                f"is not offered here; take a model whose steps are {', '.join(STEPS)}, with the "
                f"model in the folder itself and the pooling in {pooling}"
            )
    return any(kind == "Pooling" for kind, _ in steps)


def _pooling(path: Path) -> Literal["mean", "cls"]:
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file, but {MODULES} names it: it says how a sentence is made of its "
            "tokens; fetch it, too"
        )
    table = _table(path)
    named = [key.removeprefix(PREFIX) for key in table if key.startswith(PREFIX) and table[key]]
    if len(named) != 1 or named[0] not in MODES:
        raise WeightsError(
            f"{path}: pools by {plain(', '.join(named)[:200]) or 'nothing'}; offered is one of "
            f"{', '.join(MODES)}: take another model"
        )
    return MODES[named[0]]


def _table(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    table = read_json(path) if path.is_file() else {}
    if not isinstance(table, dict):
        raise WeightsError(f"{path}: expected a JSON object; fetch the file anew")
    return table
