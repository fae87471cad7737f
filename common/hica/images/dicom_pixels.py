"""The stored values of one frame of a DICOM file, and what of them is padding."""

import math

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

from hica.images.dicom_codestream import check_frame
from hica.images.dicom_tags import count, named, numbers, wrong
from hica.images.grey import Array, Mask
from hica.images.refusals import OR_OUT, RefusedError, check_size, damaged, unsupported

ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PADDINGS = {
    "FloatPixelData": "FloatPixelPadding",
    "DoubleFloatPixelData": "DoubleFloatPixelPadding",
    "PixelData": "PixelPadding",
}


def check_tags(dataset: Dataset) -> None:
    """Check what is needed to decode a frame: present, sensible, and of a form that is read.

    Sets what may be left out.

    Raises:
        RefusedError: Names the tag.
    """
    rows, columns = count(dataset, "Rows"), count(dataset, "Columns")
    check_size(columns, rows)
    allocated = count(dataset, "BitsAllocated")
    samples = count(dataset, "SamplesPerPixel", 1)
    interpretation = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    if not interpretation:
        state = "is empty" if "PhotometricInterpretation" in dataset else "is missing"
        raise wrong("PhotometricInterpretation", state)
    if interpretation not in (
        ONE_SAMPLE if samples == 1 else THREE_SAMPLES if samples == 3 else ()
    ):
        raise unsupported(
            f"has {samples} samples a pixel of {named('PhotometricInterpretation')} "
            f"{interpretation[:20]!r}, which is not read",
            "export it as RGB or MONOCHROME2",
        )
    if allocated not in (1, 8, 16, 32, 64):
        raise unsupported(
            f"has {allocated} bits for a value by {named('BitsAllocated')}, packed in a way that "
            "is not read",
            "export it with 16",
        )
    bits = count(dataset, "BitsStored", allocated)
    if interpretation in ("YBR_FULL", "YBR_FULL_422") and bits != 8:
        raise unsupported(f"has {interpretation} colours of {bits} bits", "export it as RGB")
    if not 0 < bits <= allocated:
        raise wrong("BitsStored", f"is {bits}, of {allocated} bits allocated")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = samples, interpretation
    dataset.BitsStored = bits
    dataset.HighBit = count(dataset, "HighBit", bits - 1)
    dataset.PixelRepresentation = count(dataset, "PixelRepresentation", 0)
    if samples == 3:
        dataset.PlanarConfiguration = count(dataset, "PlanarConfiguration", 0)


def frames_of(dataset: Dataset) -> int:
    """How many frames a file says that it has."""
    return count(dataset, "NumberOfFrames", 1) or 1


def decode_frame(dataset: Dataset, frame: int) -> Array:
    """The stored values of a frame: `[H, W]`, or RGB `[H, W, 3]`.

    Raises:
        RefusedError: Compressed in a way that is not read, cut short, of another size than said.
        Exception: Whatever pydicom and its decoders make of a broken file.
    """
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise unsupported(
            f"is compressed in a way that is not read: {_name(syntax)}",
            "export it uncompressed or as JPEG 2000; of a video, export a frame",
        ) from None
    if not decoder.is_available:
        raise RefusedError(
            f"is compressed as {_name(syntax)}, and no decoder for it is installed "
            f"({'; '.join(decoder.missing_dependencies)}); install HiCA again with what it depends "
            f"on, or export the file uncompressed"
        )
    if syntax.is_encapsulated:
        if not dataset.PixelData.startswith(b"\xfe\xff\x00\xe0"):
            raise damaged("its pixel data are not in the parts that its transfer syntax asks for")
        offsets = None
        if "ExtendedOffsetTable" in dataset:
            offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        encoded = get_frame(
            dataset.PixelData,
            frame,
            number_of_frames=frames_of(dataset),
            extended_offsets=offsets,
        )
        check_frame(encoded, dataset.Rows, dataset.Columns)
        try:
            # On broken data pylibjpeg-rle panics, which no handler of errors expects.
            plugin = "pydicom" if syntax == RLELossless else ""
            return pixel_array(dataset, index=frame, decoding_plugin=plugin)
        except RuntimeError as error:  # what every decoder said, a line each
            said = "; ".join(line.strip() for line in str(error).splitlines()[1:])
            raise RefusedError(
                f"cannot be decoded: no decoder can read its {syntax.name} ({said[:200]}); the "
                "file is damaged or not as the standard has it: copy it again from its source, "
                f"export it uncompressed, {OR_OUT}"
            ) from error
    empty = dataset.HighBit + 1 - dataset.BitsStored
    if empty > 0:  # values in the high bits, as old devices wrote
        whole = pixel_array(dataset, index=frame, correct_unused_bits=False)
        if whole.any() and not (whole & (2**empty - 1)).any():
            return np.asarray(whole >> empty)
    return pixel_array(dataset, index=frame)


def excess_notes(dataset: Dataset) -> tuple[str, ...]:
    """A note where there is more pixel data than the tags account for."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in dataset:
        return ()
    values = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * frames_of(dataset)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        values = values // 3 * 2
    if len(dataset.PixelData) <= math.ceil(values * dataset.BitsAllocated / 8) + 1:
        return ()
    return ("its pixel data go on after what Rows, Columns and Number of Frames account for",)


def padding_of(stored: Array, dataset: Dataset, frame: int) -> Mask | None:
    """Where a frame of stored values `[H, W]` is no image, `[H, W]`; None where nothing is said."""
    keyword = next(prefix for data, prefix in PADDINGS.items() if data in dataset)
    value = numbers(dataset, f"{keyword}Value")
    if not value or stored.ndim != 2:
        return None
    limit = numbers(dataset, f"{keyword}RangeLimit") or value
    low, high = sorted(_as_stored(dataset, end) for end in (value[0], limit[0]))
    top = 2.0 ** (dataset.BitsStored - dataset.PixelRepresentation)
    if keyword == "PixelPadding" and dataset.BitsStored < dataset.BitsAllocated:
        beyond = low >= top or high < (-top if dataset.PixelRepresentation else 0)
        if beyond:  # in bits that pydicom takes for unused, and cuts off
            stored = pixel_array(dataset, index=frame, correct_unused_bits=False)
    return np.asarray((stored >= low) & (stored <= high))


def _as_stored(dataset: Dataset, value: float) -> float:
    """A padding value with the sign of the pixels: it is often written with the other one."""
    if "PixelData" not in dataset:
        return value
    words: float = 2.0**dataset.BitsAllocated
    if dataset.PixelRepresentation == 1 and value >= words / 2:
        return value - words
    return value + words if dataset.PixelRepresentation == 0 and value < 0 else value


def _name(syntax: UID) -> str:
    return f"{syntax.name} ({syntax})" if syntax.name != syntax else str(syntax)
