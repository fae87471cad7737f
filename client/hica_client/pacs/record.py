"""What the site notes of its pulls, in `state/pulls.jsonl`: when, who, from where, how many.

No identifier of a patient, study or image is in it: it may stay when the images are deleted.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hica_client.journal import append_line, opened


@contextmanager
def recorded(
    journal: Path, about: dict[str, Any], result: Callable[[], dict[str, Any]]
) -> Iterator[None]:
    """Note a pull when it begins and when it ends, with what `result` gives by then.

    Raises:
        StorageError: The record cannot be written; nothing is pulled without one.
    """
    _note(journal, {"event": "begun", **about})
    ended = "failed"
    try:
        yield
        ended = "done"
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        _note(journal, {"event": ended, **result()})


def _note(journal: Path, entry: dict[str, Any]) -> None:
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}
    with opened(journal) as file:
        append_line(file, json.dumps(line).encode() + b"\n")
