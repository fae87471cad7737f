"""One process per folder: a lock that the kernel lets go of however its holder ends.

The file holds the holder's process id, for people and for `stop`. It stays behind and means
nothing by itself; only the lock on it does.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hica.errors import ConfigurationError, FederationError
from hica.storage import cannot_be_written

if sys.platform == "win32":
    raise ConfigurationError("coordinator and hospitals run on Linux; use a Linux machine or WSL 2")

import fcntl

STOP_SECONDS = 60.0
"""How long `end_holder` waits; every service has ten seconds to end by itself."""
_TRIES = 20
_PAUSE = 0.05
"""Seconds between tries: `holder` takes the lock for an instant to see whether it is free."""


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold the lock at `path`, making its folder.

    `what` runs only once, and begins the error: `the coordinator of study/`.

    Raises:
        FederationError: Another process holds it; names its id.
        StorageError: The file cannot be written.
    """
    with _opened(path) as descriptor:
        if not _acquired(descriptor):
            raise FederationError(
                f"{what} is running already: process {_written(descriptor)} holds {path}. "
                "Stop that one first, or leave it to its work"
            )
        _write(path, descriptor)
        yield


def holder(path: Path) -> int | None:
    """Process id of the live holder of the lock at `path`; None where nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def end_holder(path: Path) -> bool:
    """End the live holder of the lock at `path` by SIGTERM and wait for that; whether there is one.

    Raises:
        FederationError: It does not end.
    """
    process = holder(path)
    if process is None:
        return False
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while holder(path) == process:
        if time.monotonic() > deadline:
            raise FederationError(
                f"process {process} has not ended within {STOP_SECONDS:g} s. Run: kill -9 "
                f"{process}; what is on disk is whole, and its services end with it"
            )
        time.sleep(_PAUSE)
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor that no started process inherits: closing it frees the lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _acquired(descriptor: int) -> bool:
    """Try for a second to take the lock."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return True
    return False


def _write(path: Path, descriptor: int) -> None:
    """Put this process's id in the place of an earlier one."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _written(descriptor: int) -> int | None:
    """Process id in the file behind `descriptor`; None in the instant before it is written."""
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
