"""Image files → 8-bit RGB, and masks: by what they hold, not by their names.

The formats are in files of their own: `raster` (PNG, JPEG, TIFF and their kin), `dicom`, `nifti`.
What is chosen and what is refused is in docs/images.md, for users.
"""

import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from hica.errors import DataError
from hica.images import raster
from hica.images.geometry import Size, resized, square_size
from hica.images.packed import head_of, is_packed, unpacked
from hica.images.refusals import MOST_BYTES, OR_OUT, RefusedError, damaged, too_large, unsupported
from hica.images.unknown import looks_like, unknown
from hica.storage import read_file

for library in ("pydicom", "nibabel.global", "tifffile"):
    # What is amiss is said in the error or in notes.
    logging.getLogger(library).setLevel(logging.CRITICAL)

STORED_SIZE = "stored_size"
"""Key of Pillow's `info`: the size of an image before its pixels were made square."""


class Picture(NamedTuple):
    """A decoded image file, and what a person should know of how it was read."""

    image: Image.Image
    """8-bit RGB."""
    way: str
    """By which way it came to 8-bit RGB, in words: the same for all files of a kind."""
    notes: tuple[str, ...] = ()
    """What was left out, passed over or chosen, each a short sentence without the file's name."""


def read_image(path: Path) -> Image.Image:
    """Read an image as 8-bit RGB, upright and with square pixels.

    Grey values of more than 8 bits are scaled by the image's own range; a DICOM file is shown
    through its window or lookup table where it has one. Of a volume, the middle slice is taken.

    Raises:
        DataError: The file is missing, damaged, or holds no picture that is read.
    """
    return decode_image(read_bytes(path), path)


def read_picture(path: Path) -> Picture:
    """`read_image`, with the way it was read."""
    return decode_picture(read_bytes(path), path)


def read_mask(path: Path, size: Size, stored: Size | None = None) -> npt.NDArray[np.bool_]:
    """Read a mask `[H, W]`, True where it marks something, in any format `read_image` knows.

    What marks is not black: any number in a format that keeps numbers, half of white in one that
    does not, such as JPEG, and in probabilities.

    Args:
        path: The file.
        size: The image's width and height, in pixels.
        stored: Those of its file (`stored_size`). A mask of that size is brought to `size`.

    Raises:
        DataError: The file cannot be read, or its size is neither.
    """
    return decode_mask(read_bytes(path), path, size, stored)


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file, for hashing and decoding alike."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _about(path, too_large(f"more than {MOST_BYTES:,} bytes, which is the limit"))
        return read_file(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; restore the file {OR_OUT}"
        ) from error


def stored_size(image: Image.Image) -> Size:
    """Width and height of an image from `read_image`, before its pixels were made square."""
    size: Size = image.info.get(STORED_SIZE, image.size)
    return size


def decode_image(data: bytes, path: Path) -> Image.Image:
    """`read_image` of bytes already in memory; `path` is for messages."""
    return decode_picture(data, path).image


def decode_picture(data: bytes, path: Path) -> Picture:
    """`read_picture` of bytes already in memory; `path` is for messages."""
    pixels, way, notes, aspect = _read(data, path, "picture")
    stored: Size = pixels.shape[1::-1]
    size = square_size(stored, aspect)
    if size != stored:
        notes += ("its pixels are not square: it is stretched to square ones",)
    image = Image.fromarray(resized(pixels, size)).convert("RGB")
    image.info[STORED_SIZE] = stored
    return Picture(image, way, notes)


def decode_mask(
    data: bytes, path: Path, size: Size, stored: Size | None = None
) -> npt.NDArray[np.bool_]:
    """`read_mask` of bytes already in memory; `path` is for messages."""
    inside, aspect = _read(data, path, "mask")
    own: Size = inside.shape[1::-1]
    if own not in (size, stored) and square_size(own, aspect) != size:
        turned = " and turned as the image is" if own == size[::-1] else ""
        raise DataError(
            f"{path}: the mask is {own[0]}×{own[1]} px but its image is {size[0]}×{size[1]} px; "
            f"export the mask at the image's size{turned}"
        )
    return resized(inside, size)


def _read(data: bytes, path: Path, what: str) -> Any:
    """What a reader's function `what`, `picture` or `mask`, makes of a file."""
    try:
        with warnings.catch_warnings():  # what is amiss is said in notes
            warnings.simplefilter("ignore")
            reader = _reader(data)
            if reader is None and is_packed(data):
                data = _unpacked(data)
                reader = _reader(data)
            if reader is None:
                raise unknown(data)
            return getattr(reader, what)(data)
    except RefusedError as refused:
        raise _about(path, refused) from None
    except MemoryError as error:
        raise _about(path, too_large("there is not enough memory to decode it")) from error
    # A broken file makes the decoders raise almost anything: OSError, SyntaxError, EOFError, …
    except Exception as error:
        raise _about(path, damaged(_reason(error))) from error


def _reader(data: bytes) -> ModuleType | None:
    """The module for a format; pydicom and nibabel are loaded when one needs them."""
    # DICOM first: what stands before it may be the header of a TIFF of the same pixels.
    if data[128:132] != b"DICM" and raster.is_raster(data):
        return raster
    from hica.images import dicom, nifti

    if dicom.is_dicom(data):
        return dicom
    return nifti if nifti.is_nifti(data) else None


def _unpacked(data: bytes) -> bytes:
    """A picture that is packed by gzip, of a volume no more than its header promises."""
    head = head_of(data)
    reader = _reader(head)
    if reader is None:
        raise unsupported(
            f"is packed by gzip, and what is in it looks to be {looks_like(head)}",
            "name an image file",
        )
    return unpacked(data, reader.bytes_of(head) if hasattr(reader, "bytes_of") else None)


def _about(path: Path, refusal: RefusedError) -> DataError:
    return DataError(f"{path}: {refusal}")


def _reason(error: Exception) -> str:
    """What a decoder says, in one line; its kind where it says nothing."""
    return str(error).partition("\n")[0][:200] or type(error).__name__
