"""run_file: the JSON files that a finished run has left, and that they are of one study."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError
from hica.study.schema import canonical_json


def read_run_file(run: Path, name: str) -> dict[str, Any]:
    """Read a file that a finished run has left.

    Raises:
        ConfigurationError: It is not there, because the run has not ended or this is no run.
    """
    path = run / name
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file; give the folder of a run that has come to its end (the command "
            "that started a run also resumes it)"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error}); delete it and run the study's command again, which "
            "writes it anew"
        ) from None
    return content


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
