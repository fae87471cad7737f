"""The folder of received files: each whole and under its own name, or not there.

    DIR/ab/ab3f….dcm    one file an instance, by the SHA-256 of its SOPInstanceUID
    DIR/.pull/          the lock, and what is being received; emptied at start and end

What is there tells a later pull what it need not fetch: no other record can disagree with it.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hica.deployment.lockfile import hold
from hica.errors import ConfigurationError, StorageError
from hica.printable import size_words
from hica.storage import cannot_be_written, open_to_others, replacing
from hica_client.pacs.errors import LostInstanceError
from hica_client.pacs.whole import TOO_LARGE, check_whole

LEAST_FREE = 100_000_000
"""Bytes that a pull leaves free on the disk."""
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


class Store:
    """Received instances; several threads may use it."""

    def __init__(self, folder: Path, max_instance_bytes: int) -> None:
        """For `opened`: the folder is there and held."""
        self.folder = folder
        self.max_instance_bytes = max_instance_bytes
        self._parts = folder / ".pull" / "parts"
        self._lock = threading.Lock()
        self.fetched = 0
        """Instances that were kept since the store was opened."""
        self.bytes = 0
        """Their size together."""

    def path(self, sop: str) -> Path:
        """Where an instance lies; no UID and no name is in it."""
        name = hashlib.sha256(sop.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.dcm"

    def holds(self, sop: str, study: str) -> bool:
        """Whether an instance is there and whole; one that is not is fetched again."""
        path = self.path(sop)
        try:
            check_whole(path, sop, study, self.max_instance_bytes)
        except LostInstanceError:
            return False
        return True

    def check_space(self) -> None:
        """Raise `StorageError` where the disk is nearly full."""
        free = shutil.disk_usage(self.folder).free
        if free < LEAST_FREE:
            raise StorageError(
                f"{self.folder}: only {size_words(free)} are free on this disk; free space, and "
                "the same command goes on"
            )

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A file to receive an instance in, gone afterwards unless it was kept."""
        path = self._parts / f"{uuid.uuid4().hex}.dcm"
        path.touch(PRIVATE_FILE)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, part: Path, sop: str, study: str) -> None:
        """Check a received file and put it in its place.

        Raises:
            LostInstanceError: It is not whole, too large, or another than was asked for.
            StorageError: The disk is full.
        """
        size = part.stat().st_size
        if size > self.max_instance_bytes:
            raise LostInstanceError(TOO_LARGE, again=False)
        check_whole(part, sop, study, self.max_instance_bytes)
        path = self.path(sop)
        try:
            path.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            part.chmod(PRIVATE_FILE)
            with replacing(path, part=part, mode=PRIVATE_FILE):
                pass
        except OSError as error:
            raise cannot_be_written(path, error) from error
        with self._lock:
            self.fetched += 1
            self.bytes += size


@contextmanager
def opened(folder: Path, max_instance_bytes: int) -> Iterator[Store]:
    """Hold a folder of received files, making it for this user alone.

    Whatever is written to a temporary file meanwhile lies in it, too: pydicom and pynetdicom put
    parts of images there.

    Raises:
        ConfigurationError: Others on this machine may read it.
        FederationError: Another pull fills it now.
        StorageError: It cannot be written.
    """
    _make_private(folder)
    parts = folder / ".pull" / "parts"
    before = tempfile.tempdir
    with hold(folder / ".pull" / "lock", f"a pull into {folder}"):
        try:
            shutil.rmtree(parts, ignore_errors=True)  # of a pull that was killed
            parts.mkdir(PRIVATE_FOLDER)
            tempfile.tempdir = str(parts)
            yield Store(folder, max_instance_bytes)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            raise cannot_be_written(folder, error) from error
        finally:
            tempfile.tempdir = before
            shutil.rmtree(parts, ignore_errors=True)


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can look into."""
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        (folder / ".pull").mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        if os.listdir(folder) == [".pull"]:  # noqa: PTH208  # ours alone, so far
            folder.chmod(PRIVATE_FOLDER)
    except OSError as error:
        raise cannot_be_written(folder, error) from error
    if words := open_to_others(folder):
        raise ConfigurationError(f"{words}. What comes from a PACS has patients' names in it")
