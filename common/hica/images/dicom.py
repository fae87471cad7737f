"""DICOM → a frame as its tags say it is to be shown, or what a mask marks."""

import io
import zlib

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from hica.images.dicom_content import check_content, is_one_place, is_segmentation, kind_notes
from hica.images.dicom_display import grey
from hica.images.dicom_pixels import check_tags, decode_frame, excess_notes, frames_of, padding_of
from hica.images.dicom_tables import coloured
from hica.images.dicom_tags import named, number, numbers, places
from hica.images.geometry import aspect_of
from hica.images.grey import Array, to_8_bit
from hica.images.refusals import check_bytes, unsupported
from hica.images.shown import Marked, Shown, marked

LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)
"""Transfer syntaxes that keep values only roughly."""
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
"""Height and width of a pixel, the surest first."""
GROUPS = (b"\x02\0", b"\x08\0", b"\0\x08")
"""How a file without preamble begins: a group of the header, in either order of bytes."""


def is_dicom(data: bytes) -> bool:
    """Whether a file begins like DICOM, with the preamble or, as old exports do, without it."""
    if data[128:132] == b"DICM":
        return True
    if data[:2] not in GROUPS or len(data) < 12:
        return False
    length = int.from_bytes(data[4:8], "little")
    return (data[4:6].isalpha() and data[4:6].isupper()) or 0 < length < min(len(data), 2**16)


def picture(data: bytes) -> Shown:
    """The frame of a file (of several, the middle one) as its tags say it is to be shown.

    Raises:
        RefusedError: No picture, damaged, or of a form that is not read; names the tag.
        Exception: Whatever pydicom makes of a broken file.
    """
    dataset = _opened(data)
    frames = frames_of(dataset)
    frame = frames // 2
    stored = decode_frame(dataset, frame)
    kind = "DICOM" if frames == 1 else "DICOM, middle frame"
    notes = [f"frame {frame + 1} of {frames} is shown"] if frames > 1 else []
    more: tuple[str, ...] = ()
    if dataset.SamplesPerPixel == 3:
        pixels, way = _rgb(stored, dataset), "colour"
    elif dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels, more = coloured(stored, dataset)
        way = "palette"
    else:
        pixels, way, more = grey(stored, dataset, frame, padding_of(stored, dataset, frame))
    aspect, passed_over = _aspect(dataset, frame)
    notes += [*kind_notes(dataset), *excess_notes(dataset), *more, *passed_over]
    return Shown(pixels, f"{kind}, {way}", tuple(notes), aspect)


def mask(data: bytes) -> Marked:
    """What a file marks: its middle frame, by stored values; of a segmentation, all segments.

    Raises:
        RefusedError: See `picture`; or a segmentation of several slices.
        Exception: Whatever pydicom makes of a broken file.
    """
    dataset = _opened(data)
    frames = frames_of(dataset)
    if not is_segmentation(dataset):
        inside = _marked(dataset, frames // 2)
        return Marked(inside, _aspect(dataset, frames // 2)[0])
    if not is_one_place(dataset, frames):
        raise unsupported(
            f"is a segmentation of several slices ({frames} frames), and which of them belongs to "
            "the image is not known here",
            "export the slice of the image as a mask of its own",
        )
    inside = np.logical_or.reduce([_marked(dataset, frame) for frame in range(frames)])
    return Marked(inside, _aspect(dataset, 0)[0])


def _opened(data: bytes) -> Dataset:
    """The data set of a file, with all that decoding a frame needs.

    Raises:
        RefusedError: There is no picture, or a tag is missing.
    """
    _check_deflated(data)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    check_content(dataset)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = _syntax_as_read(dataset)
    check_tags(dataset)
    return dataset


def _check_deflated(data: bytes) -> None:
    """Check what a deflated file unpacks to, before pydicom does so.

    Raises:
        RefusedError: Too large.
    """
    if DeflatedExplicitVRLittleEndian.encode() not in data[:2048]:
        return
    file = io.BytesIO(data)
    file.seek(132)
    beyond = data_element_generator(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    for _ in beyond:
        pass
    unpacker, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), data[file.tell() :], 0
    while rest and not unpacker.eof:
        size += len(unpacker.decompress(rest, 2**24))
        check_bytes(size)
        rest = unpacker.unconsumed_tail


def _syntax_as_read(dataset: Dataset) -> UID:
    """The transfer syntax of a file that does not say it: how pydicom could read its tags.

    Raises:
        RefusedError: Its pixels are compressed, and nothing says how.
    """
    if bytes(dataset.get("PixelData", b"")[:4]) == b"\xfe\xff\x00\xe0":
        raise unsupported(
            "is compressed, and its transfer syntax (0002,0010) is missing, which would say how",
            "export it again as a DICOM file with its header (part 10)",
        )
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _rgb(stored: Array, dataset: Dataset) -> Array:
    """Colours of any depth, by the bits that they are said to have."""
    bits = int(dataset.BitsStored)
    return stored if stored.dtype == np.uint8 and bits == 8 else to_8_bit(stored, 0, 2.0**bits - 1)


def _marked(dataset: Dataset, frame: int) -> Array:
    """What a frame marks, `[H, W]`: see `marked`."""
    stored = decode_frame(dataset, frame)
    bits = int(dataset.BitsStored)
    lossy = dataset.file_meta.TransferSyntaxUID in LOSSY
    if dataset.SamplesPerPixel == 3:
        return marked(stored, 2.0**bits - 1, lossy)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return marked(coloured(stored, dataset)[0], 255, lossy)
    full = 2 ** (bits - dataset.PixelRepresentation) - 1
    if dataset.get("SegmentationFractionalType") == "PROBABILITY":
        full, lossy = int(number(dataset, "MaximumFractionalValue", full)), True
    levels = full - stored.astype(np.int64) if _is_inverted(dataset) else stored
    padding = padding_of(stored, dataset, frame)
    return marked(levels if padding is None else np.where(padding, 0, levels), full, lossy)


def _is_inverted(dataset: Dataset) -> bool:
    return bool(dataset.PhotometricInterpretation == "MONOCHROME1")


def _aspect(dataset: Dataset, frame: int) -> tuple[float, tuple[str, ...]]:
    """Height over width of a pixel, and a note on what is no such thing."""
    notes: tuple[str, ...] = ()
    for keyword in SPACINGS:
        for place in places(dataset, "PixelMeasuresSequence", frame):
            sizes = numbers(place, keyword)
            if len(sizes) == 2 and min(sizes) > 0:
                return aspect_of(*sizes), notes
            if sizes:
                notes = (f"{named(keyword)} is no height and width of a pixel: passed over",)
    return 1.0, notes
