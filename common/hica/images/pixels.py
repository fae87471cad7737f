"""Pixels: an image decoded and resized once, and read from the cache ever after."""

import hashlib
from typing import NamedTuple

from torch import Tensor

from hica.errors import DataError
from hica.images.cache import TensorCache, image_key
from hica.images.decode import decode_image, decode_mask, read_bytes, stored_size
from hica.images.manifest import Record
from hica.images.preprocess import Preprocess

VERSION = 2
"""Raised when decoding changes, so that older caches are not believed."""


class Pixels(NamedTuple):
    """What a tower and the regions need of one image."""

    pixels: Tensor
    """uint8 `[3, S, S]`."""
    mask: Tensor | None
    """bool `[S, S]`; None where the manifest names no mask."""
    sha256: str
    """Hash of the image file, part of the key of everything computed from it."""


def image_of(record: Record) -> tuple[bytes, str]:
    """The bytes of a record's image file, and their SHA-256.

    Raises:
        DataError: It cannot be read, or holds another image than the study was drawn with.
    """
    data = read_bytes(record.image)
    found = hashlib.sha256(data).hexdigest()
    if record.sha256 not in (None, found):
        raise DataError(
            f"{record.image}: has changed since the study was drawn here, which does not use what "
            "the file holds now. Put back the file that it was; or restart the client, and the "
            "study goes on without this image"
        )
    return data, found


def pixels_of(record: Record, preprocess: Preprocess, cache: TensorCache | None = None) -> Pixels:
    """Pixels and mask of a record, from the cache where the files have been met before.

    Files are hashed at every call, which costs far less than decoding and notices an exchanged
    file.

    Raises:
        DataError: Image or mask cannot be read, their sizes differ, or the image is not the one
            that the study was drawn with.
        StorageError: The cache cannot be written.
    """
    image_bytes, image_sha256 = image_of(record)
    mask_bytes = read_bytes(record.mask) if record.mask else None
    mask_sha256 = hashlib.sha256(mask_bytes).hexdigest() if mask_bytes is not None else ""
    key = image_key(image_sha256, "pixels", VERSION, mask_sha256, preprocess)
    tensors = cache.get(key) if cache else None
    if tensors is None:
        image = decode_image(image_bytes, record.image)
        tensors = {"pixels": preprocess.pixels(image)}
        if record.mask and mask_bytes is not None:
            mask = decode_mask(mask_bytes, record.mask, image.size, stored_size(image))
            tensors["mask"] = preprocess.mask(mask)
        if cache:
            cache.put(key, tensors)
    return Pixels(tensors["pixels"], tensors.get("mask"), image_sha256)
