"""The images that are to be predicted: a file, a folder, or a manifest."""

import os
from collections.abc import Iterator
from pathlib import Path

from hica.errors import DataError
from hica.images.manifest import Record, read_manifest

PASSED_OVER = ("__MACOSX", "Thumbs.db", "desktop.ini")


def records_of(path: Path) -> list[Record]:
    """A record an image, in the order of their names; those of a manifest with their masks.

    Raises:
        DataError: There is no image.
    """
    if path.suffix.lower() == ".csv":
        return read_manifest(path)
    if path.is_file():
        return [Record(image=path, name=path.name, group=path.name)]
    if not path.exists():
        raise DataError(f"{path}: does not exist; name an image, a folder of images or a manifest")
    files = sorted(_below(path))
    if not files:
        raise DataError(f"{path}: no files in it; name a folder of images")
    names = [file.relative_to(path).as_posix() for file in files]
    return [
        Record(image=file, name=name, group=name) for file, name in zip(files, names, strict=True)
    ]


def _below(folder: Path) -> Iterator[Path]:
    """Files below a folder, without what systems leave there; links to folders are not followed.

    Raises:
        DataError: A folder may not be read.
    """

    def closed(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); open it to this user, or name "
            "another folder"
        )

    for root, folders, files in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not _passed_over(name)]
        yield from (Path(root, name) for name in files if not _passed_over(name))


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name in PASSED_OVER
