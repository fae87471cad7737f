"""read_run_file: a JSON file that a finished run has left."""

import json
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError


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
