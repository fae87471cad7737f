"""Image files → 8-bit RGB: PNG, JPEG and their kin, DICOM, NIfTI."""

import gzip
import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from hica.errors import DataError
from hica.storage import read_file

Array = npt.NDArray[Any]

DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's grey modes of more than 8 bits."""
WAYS = {"RGB": "8-bit RGB", "L": "8-bit grey", "1": "black and white"}
"""What is shown as it is, by Pillow's mode."""
OWN_RANGE = "scaled by the image's own range"

MOST_PIXELS = 357_913_940
"""Of an image, Pillow's own limit: beyond it a small file could fill the memory."""
MOST_BYTES = 2 * 2**30
"""Of an unpacked NIfTI file."""


class Picture(NamedTuple):
    """A decoded image file, and what a person should know of how it was read."""

    image: Image.Image
    """8-bit RGB."""
    way: str
    """By which way it came to 8-bit RGB, in words: the same for all files of a kind."""
    notes: tuple[str, ...] = ()
    """What was left out, passed over or chosen, each a short sentence without the file's name."""


class _TooLargeError(Exception):
    """An image beyond the limits; says which."""


def read_image(path: Path) -> Image.Image:
    """Read an image as 8-bit RGB.

    Grey values of more than 8 bits are scaled by the image's own range; a DICOM file is shown
    through its window or lookup table where it has one. Of a volume, the middle slice is taken.

    Raises:
        DataError: The file is missing, truncated or of no known kind.
    """
    return decode_image(read_bytes(path), path)


def read_picture(path: Path) -> Picture:
    """`read_image`, with the way it was read."""
    return decode_picture(read_bytes(path), path)


def read_mask(path: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a mask `[H, W]`, True where the file is not zero, in any format `read_image` knows.

    `size` is the image's `(width, height)`, in pixels.

    Raises:
        DataError: The file cannot be read, or its size is not the image's.
    """
    return decode_mask(read_bytes(path), path, size)


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file, for hashing and decoding alike."""
    try:
        return read_file(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; restore the file or take its row out of "
            "the manifest"
        ) from error


def decode_image(data: bytes, path: Path) -> Image.Image:
    """`read_image` of bytes already in memory; `path` is for messages."""
    return decode_picture(data, path).image


def decode_mask(data: bytes, path: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """`read_mask` of bytes already in memory; `path` is for messages."""
    image, _ = _open(data, path)
    if image.size != size:
        raise DataError(
            f"{path}: the mask is {image.width}×{image.height} px but its image is "
            f"{size[0]}×{size[1]} px; export the mask at the image's size"
        )
    if image.mode not in ("1", "L", "P", *DEEP_MODES):  # colours: alpha is no part of the mask
        image = image.convert("L")
    return np.asarray(np.asarray(image) != 0)


def decode_picture(data: bytes, path: Path) -> Picture:
    """`read_picture` of bytes already in memory; `path` is for messages."""
    image, way = _open(data, path)
    if image.mode in DEEP_MODES:
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    return Picture(image.convert("RGB"), way)


def _open(data: bytes, path: Path) -> tuple[Image.Image, str]:
    """Decode by content, since hospital exports are often named without a suffix."""
    try:
        if data[128:132] == b"DICM":
            return _open_dicom(data)
        if data[:2] == b"\x1f\x8b" or data[344:347] in (b"n+1", b"ni1"):
            return _open_nifti(data), f"NIfTI, middle slice, {OWN_RANGE}"
        image = _open_picture(data)
        deep = f"grey of more than 8 bits, {OWN_RANGE}" if image.mode in DEEP_MODES else ""
        return image, deep or WAYS.get(image.mode, f"{image.mode} converted to RGB")
    except _TooLargeError as error:
        raise DataError(
            f"{path}: is too large: {error}; export it at a smaller size, or take its row out of "
            "the manifest"
        ) from None
    # A broken file makes the decoders raise almost anything: OSError, SyntaxError, EOFError, …
    except Exception as error:
        raise DataError(
            f"{path}: cannot be decoded ({_reason(error)}); the file is truncated, damaged or of "
            "no known format: copy it again from its source or take its row out of the manifest"
        ) from error


def _open_picture(data: bytes) -> Image.Image:
    """A picture in one of Pillow's formats."""
    with warnings.catch_warnings():
        # The limit is where it is an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data))
        except Image.DecompressionBombError:
            raise _TooLargeError(f"more than {MOST_PIXELS:,} px, which is the limit") from None
        except UnidentifiedImageError:
            raise ValueError("no image") from None
    image.load()  # Pillow decodes lazily; here is where a truncated file is found out
    return image


def _reason(error: Exception) -> str:
    """What a decoder says, in one line; its kind where it says nothing."""
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _open_dicom(data: bytes) -> tuple[Image.Image, str]:
    """The frame of a DICOM file (of several, the middle one) as its window shows it."""
    import pydicom
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
    from pydicom.pixels.utils import pixel_array

    dataset = pydicom.dcmread(io.BytesIO(data))
    if int(dataset.Rows) * int(dataset.Columns) > MOST_PIXELS:
        raise _TooLargeError(f"more than {MOST_PIXELS:,} px, which is the limit")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    kind = "DICOM" if frames == 1 else "DICOM, middle frame"
    values = pixel_array(dataset, index=frames // 2)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = _to_8_bit(apply_color_lut(values, dataset))
        return Image.fromarray(colours), f"{kind}, palette, {OWN_RANGE}"
    if values.ndim == 3:
        return Image.fromarray(values.astype(np.uint8)), f"{kind}, colour"
    values = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence"):
        entries, first, bits = dataset.VOILUTSequence[0].LUTDescriptor
        # pydicom lets values far beyond the table wrap round: hold them at its ends.
        held = values.astype(np.int64).clip(first, first + (entries or 2**16) - 1)
        grey, way = _to_8_bit(apply_voi(held, dataset), 0.0, 2.0**bits - 1), "its lookup table"
    elif dataset.get("WindowWidth"):
        grey, way = _to_8_bit(_windowed(values, dataset), 0.0, 1.0), "its first window"
    else:
        grey, way = _to_8_bit(values), OWN_RANGE
    if dataset.PhotometricInterpretation == "MONOCHROME1":  # low values are shown bright
        grey = 255 - grey
    return Image.fromarray(grey), f"{kind}, {way}"


def _windowed(values: Array, dataset: Any) -> Array:
    """Grey 0..1 through the first window of the file (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = (
        float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth")
    )
    function = dataset.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _open_nifti(data: bytes) -> Image.Image:
    """Middle axial slice of a NIfTI volume, anterior side up."""
    import nibabel

    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data)
    volume = nibabel.as_closest_canonical(  # type: ignore[no-untyped-call]
        nibabel.Nifti1Image.from_bytes(data)
    )
    values = np.asarray(volume.dataobj, dtype=np.float32)
    while values.ndim > 3:  # the first of a series
        values = values[..., 0]
    if values.ndim == 3:
        values = values[:, :, values.shape[2] // 2]
    return Image.fromarray(np.rot90(values).copy())


def _unpacked(data: bytes) -> bytes:
    """The content of a gzip file."""
    with gzip.open(io.BytesIO(data)) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _TooLargeError(f"more than {MOST_BYTES:,} bytes unpacked, which is the limit")
    return content


def _to_8_bit(values: Array, black: float | None = None, white: float | None = None) -> Array:
    """Scale `black`..`white` (the array's own range where not given) to 0..255."""
    low = float(values.min()) if black is None else black
    high = float(values.max()) if white is None else white
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.round(scaled * 255).astype(np.uint8)
