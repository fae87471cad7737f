"""Progress: `progress.json`, where a run stands, for status, metrics and whoever watches."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.wire.messages import shown_round
from hica_server.settings import Folder

if TYPE_CHECKING:
    from hica_server.state import RunState

logger = logging.getLogger("hica.server")

SHOWN = ("stage", "round", "participants", "missing", "refused", "loss")
"""What is taken over from the last exchange."""


ANEW = "delete it: a running server writes it anew"


def read_table(path: Path) -> dict[str, Any]:
    """A JSON table that another process keeps up to date; empty before it was first written.

    Raises:
        ConfigurationError: It cannot be read, or is no table.
    """
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: cannot be read ({why}); {ANEW}") from None
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: holds no JSON table; {ANEW}")
    return table


def read_progress(folder: Folder) -> dict[str, Any]:
    """What `progress.json` says; see `Progress`."""
    return read_table(folder.progress)


class Progress:
    """Writes `progress.json`. Its methods are those of `hica_server.app.Watcher`, and `waiting`.

    `step`, `number` and `of` tell what is being done; `done` how many steps are on disk; `stage`
    to `loss` the last exchange, its round counted from 1; `bytes_up`, `bytes_down` and `failures`
    all exchanges; `time` when that was, in seconds since 1970. TensorBoard's events of the run are
    kept up to date as well.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._now = read_progress(folder)
        self.write(step="starting")

    def write(self, **changes: Any) -> None:
        """Change what `progress.json` says.

        Raises:
            StorageError: The disk is full.
        """
        self._now |= changes | {"time": time.time()}
        write_atomically(self._folder.progress, json.dumps(self._now, indent=2).encode())

    def waiting(self, absent: Sequence[str]) -> None:
        """Note that the run waits for sites to connect."""
        logger.info("waiting for sites; not connected: %s", ", ".join(absent) or "none")
        self.write(step="waiting for sites", missing=list(absent))

    def step(self, name: str, number: int, of: int) -> None:
        """Note that a step begins."""
        logger.info("[%d/%d] %s", number + 1, of, name)
        self.write(step=name, number=number, of=of)

    def entry(self, entry: dict[str, Any]) -> None:
        """Note that an exchange has ended."""
        told = {key: entry[key] for key in SHOWN} | {"round": shown_round(entry["round"])}
        self.write(**told, **_sums([entry], self._now))

    def saved(self, state: RunState) -> None:
        """Note that the state has been read or written."""
        from hica_server.tracker import write_events

        write_events(self._folder.run / "events", state.rounds)
        self.write(done=state.done, **_sums(state.rounds, {}))


def _sums(entries: Sequence[dict[str, Any]], before: dict[str, Any]) -> dict[str, int]:
    """Bytes and failures of exchanges, added to those before."""
    each = {
        "bytes_up": [entry["bytes_up"] for entry in entries],
        "bytes_down": [entry["bytes_down"] for entry in entries],
        "failures": [len(entry["missing"]) + len(entry["refused"]) for entry in entries],
    }
    return {name: before.get(name, 0) + sum(values) for name, values in each.items()}
