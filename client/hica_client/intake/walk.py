"""Every file below a folder, once, by name; none is passed over without its reason."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hica.errors import DataError
from hica.images.folders import LEFT_BY_SYSTEMS
from hica_client.intake import reasons

SYSTEM = LEFT_BY_SYSTEMS | {".ds_store"}


@dataclass(frozen=True)
class Found:
    """A file below the folder that is imported."""

    path: Path
    relative: str
    """Its path below that folder, with slashes."""
    size: int
    mtime: int
    """In nanoseconds."""
    reason: str = ""
    """Why it is not looked into."""

    @property
    def folders(self) -> list[str]:
        """The names of the folders it lies in, from the one that is imported on."""
        return self.relative.split("/")[:-1]

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name


def walk(folder: Path) -> Iterator[Found]:
    """All that lies below `folder`; of a file, the file itself.

    Raises:
        DataError: `folder` is missing or closed.
    """
    try:
        if folder.is_file():
            found = folder.stat()
            yield Found(folder, folder.name, found.st_size, found.st_mtime_ns)
            return
        with os.scandir(folder):
            pass
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read: {error.strerror}; name the folder that holds the export"
        ) from None
    yield from _below(folder, "", "")


def _below(folder: Path, prefix: str, reason: str) -> Iterator[Found]:
    """What lies below a folder; `reason`: why nothing in it is looked into."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield Found(folder, prefix.rstrip("/"), 0, 0, reason or reasons.CLOSED)
        return
    for entry in listed:
        why = reason or _reason(entry)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), f"{prefix}{entry.name}/", why)
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:  # deleted in this moment
            yield Found(Path(entry.path), prefix + entry.name, 0, 0, why or reasons.GONE)
            continue
        if not why and not stat.S_ISREG(found.st_mode):
            why = reasons.SPECIAL
        if not why and not found.st_size:
            why = reasons.EMPTY
        path = Path(entry.path)
        yield Found(path, prefix + entry.name, found.st_size, found.st_mtime_ns, why)


def _reason(entry: os.DirEntry[str]) -> str:
    """Why a file or folder is not looked into, by its name."""
    if entry.is_symlink():
        return reasons.LINK
    if entry.name.casefold() in SYSTEM or entry.name.startswith("._"):
        return reasons.SYSTEM
    return reasons.HIDDEN if entry.name.startswith(".") else ""
