"""Files that grow by whole lines: a line counts once its newline is on disk, and is then kept.

A crash or a full disk in the middle of a write leaves an unfinished last line. Nobody was ever
told that it was written: readers pass it over and the next writer cuts it off.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from hica.errors import StorageError
from hica.storage import cannot_be_written


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Hold a journal alone, making it and its folder where they are missing.

    Raises:
        StorageError: It cannot be written, now or by what is done inside; an unfinished line may
            stay behind, as after a crash.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: after a failed write nothing is left that closing the file would write.
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
    except OSError as error:
        raise cannot_be_written(path, error) from error


def append_line(file: FileIO, line: bytes) -> int:
    """Write `line`, which ends in its newline, to disk; returns the bytes of the journal with it.

    Raises:
        OSError: For `opened`, which says it in words.
    """
    size = len(whole_lines(file, since=0)) if _is_torn(file) else file.seek(0, os.SEEK_END)
    file.truncate(size)
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())
    return size + len(line)


def whole_lines(file: FileIO, since: int) -> bytes:
    """What the journal holds from byte `since` on, less an unfinished last line."""
    file.seek(since)
    text = file.readall()
    return text[: text.rfind(b"\n") + 1]


def read_lines(path: Path) -> list[bytes]:
    """The journal's lines without their newlines; none where there is no journal.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from None
    return text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]


def _is_torn(file: FileIO) -> bool:
    """Whether the journal ends in an unfinished line."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
