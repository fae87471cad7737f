"""run_file: the JSON files that a finished run has left, and that they are of one study."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hica.errors import ConfigurationError
from hica.study.schema import canonical_json


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


class _Interval(_Shape):
    value: float
    low: float
    high: float


class _Measured(_Shape):
    accuracy: _Interval
    balanced_accuracy: _Interval
    auroc: _Interval | None


class _Site(_Shape):
    classes: dict[str, int | None] = {}
    notes: list[str] = []


class _Exchange(_Shape):
    stage: str
    round: int
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    participants: list[str] = []
    refused: dict[str, str] = {}
    missing: list[str] = []


class _Result(_Shape):
    """Of `result.json`, what report, export and tables count on."""

    study: str
    study_sha256: str
    seed: int
    sites: dict[str, _Site]
    rounds: list[_Exchange]
    final: _Measured
    per_site: dict[str, _Measured]
    gain: dict[str, dict[str, _Measured]] = {}
    baselines: dict[str, _Measured | None]
    versions: dict[str, str]


class _Described(_Shape):
    """Of `model.json`, what export counts on."""

    study: dict[str, Any]
    study_sha256: str


def read_run_file(run: Path, name: str) -> dict[str, Any]:
    """Read a JSON object that a finished run has left.

    Raises:
        ConfigurationError: It is not there, because the run has not ended or this is no run; or it
            is damaged.
    """
    path = run / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file; give the folder of a run that has come to its end (the command "
            "that started a run also resumes it)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds {type(content).__name__}, not a table")
    return content


def read_result(run: Path) -> dict[str, Any]:
    """Read `result.json`.

    Raises:
        ConfigurationError: See `read_run_file`.
    """
    return _of_shape(run, "result.json", _Result)


def read_description(run: Path) -> dict[str, Any]:
    """Read `model.json`.

    Raises:
        ConfigurationError: See `read_run_file`.
    """
    return _of_shape(run, "model.json", _Described)


def _of_shape(run: Path, name: str, shape: type[_Shape]) -> dict[str, Any]:
    content = read_run_file(run, name)
    try:
        shape.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise _damaged(run / name, f"{field}: {problem['msg']}") from None
    return content


def _damaged(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: cannot be read ({why}); delete it and run the study's command again, which "
        "writes it anew"
    )


def study_hash(table: Mapping[str, Any]) -> str:
    """Hash of a study as a file holds it, also where another version of hica wrote it."""
    return hashlib.sha256(canonical_json(table).encode()).hexdigest()


def check_one_study(run: Path, found: Mapping[str, str]) -> None:
    """Check that the files of a run, by name, are of the study of one hash.

    Raises:
        ConfigurationError: They are of several; names each with the first digits of its hash.
    """
    if len(set(found.values())) > 1:
        words = ", ".join(f"{name} of {sha[:12]}" for name, sha in found.items())
        raise ConfigurationError(
            f"{run}: its files are of different studies: {words}. One was changed or comes from "
            "another run: restore it from a backup; or delete result.json and run the study's "
            "command again, which writes all of them anew from its last step"
        )
