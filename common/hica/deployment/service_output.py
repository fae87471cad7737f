"""What a supervised process prints: read line by line, kept in a log that is rotated.

A thread per process reads, because a process whose pipe is full stands still. It ends with the
process even where something the process left behind still holds the other end of the pipe.
"""

import contextlib
import logging
import os
import re
import select
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import IO

from hica.errors import StorageError
from hica.printable import plain

FILES = 5
FILE_BYTES = 5_000_000
"""A log takes about `FILES` × `FILE_BYTES` of disk: `NAME.log`, `NAME.log.1` … `NAME.log.4`."""

_CHUNK = 2**20
"""More than a pipe holds, so that one read takes all that a dead process left in it."""
_LONGEST_LINE = 2**16
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

logger = logging.getLogger("hica.deployment.service_output")


class ServiceOutput:
    """Reads the output of one process until it is closed."""

    def __init__(self, pipe: IO[bytes], log: Path, heard: Callable[[str], None]) -> None:
        """Start to read standard output and error of the process from a pipe, which `close` closes.

        Lines are appended to the file `log`, and `heard` is called for each, in the thread that
        reads.

        Raises:
            StorageError: The folder of the log cannot be made.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{log}: cannot be written: {error.strerror}; choose a folder that may be written"
            ) from error
        self._pipe = pipe
        self._log = log
        self._heard = heard
        self._process_ended = os.eventfd(0)
        self._thread = threading.Thread(target=self._read, name=f"log of {log.stem}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read what is in the pipe and end; to be called once the process has ended."""
        os.eventfd_write(self._process_ended, 1)
        self._thread.join()
        self._pipe.close()
        os.close(self._process_ended)

    def _read(self) -> None:
        pipe = self._pipe.fileno()
        rest, last = b"", False
        while not last:
            ready, _, _ = select.select([pipe, self._process_ended], [], [])
            data = os.read(pipe, _CHUNK) if pipe in ready else b""
            last = not data or self._process_ended in ready
            *lines, rest = (rest + data).split(b"\n")
            if rest and (last or len(rest) > _LONGEST_LINE):
                lines.append(rest)
                rest = b""
            self._take([_plain_text(line) for line in lines])

    def _take(self, lines: Sequence[str]) -> None:
        with contextlib.suppress(OSError):  # a full disk costs lines; the service goes on
            append(self._log, lines)
        for line in lines:
            try:
                self._heard(line)
            except Exception:  # a listener's fault must not stop the process behind a full pipe
                logger.exception("a line of output was passed over")


def append(log: Path, lines: Sequence[str]) -> None:
    """Add lines to a log, each with the time in front of it; a full log is begun anew first.

    Raises:
        OSError: The disk is full or the folder is gone.
    """
    if log.exists() and log.stat().st_size >= FILE_BYTES:
        _rotate(log)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    with log.open("a", encoding="utf-8") as file:
        file.writelines(f"{now} {line}\n" for line in lines)


def _rotate(log: Path) -> None:
    """`NAME.log.3` → `NAME.log.4` (which is lost) … `NAME.log` → `NAME.log.1`."""
    files = [log] + [log.with_name(f"{log.name}.{number}") for number in range(1, FILES)]
    for newer, older in reversed(list(pairwise(files))):
        if newer.exists():
            newer.replace(older)


def _plain_text(line: bytes) -> str:
    """A line without colours and control characters; bytes that are no text are replaced."""
    return plain(_COLOUR.sub("", line.decode(errors="replace")).rstrip())
