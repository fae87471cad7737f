"""Files that are either whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from hica.errors import StorageError


def write_atomically(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write `data` to `path`, making its folder; a reader sees the old file or the new, whole.

    Args:
        path: Where to.
        data: What.
        mode: Permissions, less the process's umask; 0o600 for secrets.

    Raises:
        StorageError: The disk is full or the folder may not be written; nothing half-written
            stays behind and an older `path` is untouched.
    """
    # A name of its own for every writer: the sites of a simulation may share a folder.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(mode)  # first: a secret is at no time open to others
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; "
            "free space or choose a folder that may be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
