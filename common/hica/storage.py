"""Files that are either whole or absent: written beside their place, then renamed into it.

A file is on disk before it takes its place, and its folder after that, so that what was written
also survives a power cut.
"""

import contextlib
import errno
import os
import shlex
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hica.errors import StorageError


def write_atomically(path: Path, data: bytes, mode: int = 0o666, *, durable: bool = True) -> None:
    """Write `data` to `path`, making its folder; a reader sees the old file or the new, whole.

    `mode` are permissions, less the process's umask: 0o600 for secrets. Not `durable`, for what can
    be computed again: without waiting until it is on disk.

    Raises:
        StorageError: The disk is full or the folder may not be written; nothing half-written stays
            behind and an older `path` is untouched.
    """
    try:
        with replacing(path, mode=mode, durable=durable) as part:
            part.write_bytes(data)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def read_file(path: Path) -> bytes:
    """The bytes of a file that somebody named: a pipe could be waited for without end.

    Raises:
        OSError: It cannot be read, or is a pipe or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder the system refuses itself
        raise OSError(errno.EINVAL, "is a pipe or a device, not a file", str(path))
    return path.read_bytes()


def cannot_be_written(path: Path, error: OSError) -> StorageError:
    """The error to raise where the system refused to write `path`: what it said, and a remedy."""
    in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
    why = "a file is where its folder should be" if in_the_way else error.strerror or error
    return StorageError(
        f"{path}: cannot be written: {why}; free space or choose a folder that may be written"
    )


def keep_private() -> None:
    """Let whatever this process and those it starts write be for its user alone (umask 077)."""
    os.umask(0o077)


def open_to_others(folder: Path, bits: int = 0o077, may: str = "read") -> str:
    """Words where others of this machine may get at a folder, with the remedy; empty where not.

    `bits` are the permissions that nobody but the owner should have, and `may` what they allow. A
    closed folder closes all that is in it. Windows has other means, and is not looked at.
    """
    if os.name != "posix" or not folder.is_dir() or not folder.stat().st_mode & bits:
        return ""
    inside = [path for path in folder.rglob("*") if not path.is_symlink()]
    count = sum(path.lstat().st_mode & bits != 0 for path in inside)
    taken = "go=" if may == "read" else "go-w"
    return (
        f"{folder}: others on this machine can {may} it, and {count} files and folders in it. Run: "
        f"chmod -R {taken} {shlex.quote(str(folder))}"
    )


@contextmanager
def replacing(
    path: Path,
    *,
    part: Path | None = None,
    previous: Path | None = None,
    mode: int = 0o666,
    durable: bool = True,
) -> Iterator[Path]:
    """Give a file to write, and put it at `path` once it is written, making its folder.

    That file is `part`, on the same disk, by default one beside `path`. What is at `path` now goes
    to `previous`: killed between the two renames, there is no file at `path`, but one there. For
    `mode` and `durable` see `write_atomically`.

    Raises:
        OSError: It could not be written; what was at `path` is there or at `previous`.
    """
    # A name of its own for every writer: the sites of a simulation may share a folder.
    part = part or path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch(mode)  # first: a secret is at no time open to others
        yield part
        if durable:
            _sync(part, os.O_RDWR)
        if previous is not None and path.exists():
            path.replace(previous)
        part.replace(path)
        if durable and os.name != "nt":  # Windows has no such call for folders and needs none
            _sync(path.parent, os.O_RDONLY)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _sync(path: Path, access: int) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
