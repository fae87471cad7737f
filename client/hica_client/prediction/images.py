"""The images that are to be predicted: a file, a folder, or a manifest."""

from pathlib import Path

from hica.errors import DataError
from hica.images.folders import Found, records_below
from hica.images.manifest import Record, read_manifest


def images_of(path: Path) -> Found:
    """A record an image, in the order of their names; those of a manifest with their masks.

    Raises:
        DataError: There is no image.
    """
    if path.suffix.lower() == ".csv":
        return Found(read_manifest(path), {})
    if path.is_file():
        return Found([Record(image=path)], {})
    if not path.exists():
        raise DataError(f"{path}: does not exist; name an image, a folder of images or a manifest")
    found = records_below(path)
    if not found.records:
        why = "".join(f"; {note}" for note in found.notes)
        raise DataError(f"{path}: no images in it; name a folder of images{why}")
    return found
