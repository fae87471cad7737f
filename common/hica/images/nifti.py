"""NIfTI → one slice of a volume, laid as radiologists look at it.

Whatever the order and direction of the axes in the file, the same anatomy gives the same picture:
the patient's right at the left of it, and front or head up.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.orientations import io_orientation

from hica.images.geometry import aspect_of
from hica.images.grey import OWN_RANGE, Array, range_notes, to_8_bit
from hica.images.refusals import check_bytes, check_size, damaged, unsupported
from hica.images.shown import Marked, Shown, marked

SIZES = {348: Nifti1Header, 540: Nifti2Header}
"""First number of a file, the size of its header, which names the version."""
PLANES = ("sagittal", "coronal", "axial")
"""By the axis of the body that they cut: to the right, to the front, to the head."""


class Slice(NamedTuple):
    """A slice as it is to be shown, in the numbers of the file."""

    values: Array
    """`[H, W]`, or uint8 `[H, W, 3]`."""
    aspect: float
    """Height over width of a pixel."""
    plane: str
    notes: tuple[str, ...]


def is_nifti(data: bytes) -> bool:
    """Whether a file begins like NIfTI or Analyze."""
    return _header_size(data) in SIZES or data[344:347] in (b"n+1", b"ni1")


def bytes_of(head: bytes) -> int:
    """How many bytes a volume takes, of which the first 540 are given.

    Raises:
        RefusedError: No whole volume of numbers, or too large.
    """
    return _end(_header(head))


def picture(data: bytes) -> Shown:
    """The middle slice of a volume, of a series the first.

    Raises:
        RefusedError: No volume of numbers, damaged or too large.
        Exception: Whatever nibabel makes of a broken file.
    """
    values, aspect, plane, notes = _slice(data)
    if values.ndim == 3:
        return Shown(values, f"NIfTI, middle {plane} slice, colour", notes, aspect)
    way = f"NIfTI, middle {plane} slice, {OWN_RANGE}"
    return Shown(to_8_bit(values), way, notes + range_notes(values), aspect)


def mask(data: bytes) -> Marked:
    """What the same slice of a mask marks.

    Raises:
        RefusedError: See `picture`.
        Exception: Whatever nibabel makes of a broken file.
    """
    values, aspect, _, _ = _slice(data)
    return Marked(marked(values, 1), aspect)


def _slice(data: bytes) -> Slice:
    """Only the slice is decoded, of the first volume."""
    header = _header(data)
    if len(data) < _end(header):
        raise damaged(f"{len(data):,} of {_end(header):,} bytes")
    kind = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    volume: Any = kind.from_bytes(data)
    shape = [*volume.shape, 1, 1][:3]
    orientation = _orientation(volume.affine)
    axes, forward = orientation[:, 0].argsort(), orientation[:, 1] > 0  # of the body, in the file

    narrow = [body for body in range(2) if shape[axes[body]] == 1]
    cut = narrow[0] if len(narrow) == 1 and shape[axes[2]] > 1 else 2
    across, up = (int(axes[body]) for body in range(3) if body != cut)
    check_size(shape[across], shape[up])
    through = int(axes[cut])
    # Counted along the body: it must not matter at which end of an axis the file begins.
    middle = shape[through] // 2
    middle = middle if forward[through] else shape[through] - 1 - middle

    place: list[int | slice] = [slice(None)] * 3
    place[through] = middle
    within = [*place, *[0] * len(volume.shape)][: len(volume.shape)]
    values = np.asarray(volume.dataobj[tuple(within)])
    values = values.reshape([shape[axis] for axis in range(3) if axis != through])
    values = values if across < up else values.T  # [across, up]
    values = values[:: -1 if forward[across] else 1, :: -1 if forward[up] else 1].T
    if values.dtype.names:
        # What RGBA has beyond colours is rarely filled in.
        values = np.stack([values[name] for name in "RGB"], axis=-1)

    zooms = [float(zoom) for zoom in [*header.get_zooms(), 1, 1][:3]]
    aspect = aspect_of(zooms[up], zooms[across])
    return Slice(values, aspect, PLANES[cut], _notes(header, volume.shape))


def _notes(header: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """What was chosen, and what had to be supposed."""
    series = math.prod(shape[3:])
    notes = [f"the first of {series} volumes is shown"] if series > 1 else []
    if not int(header["qform_code"]) and not int(header["sform_code"]):
        notes.append("its header does not say which side is right; the usual one is supposed")
    return tuple(notes)


def _orientation(affine: Array) -> Array:
    """For each axis of the file: the axis of the body it lies along, and 1 or -1, its direction.

    Raises:
        RefusedError: The affine is broken.
    """
    try:
        orientation: Array = io_orientation(affine)  # type: ignore[no-untyped-call]
    except np.linalg.LinAlgError:
        orientation = np.full((3, 2), np.nan)
    if not np.isfinite(orientation).all():
        raise damaged("its header, sform or qform, does not say how the volume lies in the body")
    return orientation


def _header(data: bytes) -> Any:
    """The header, if it is that of a whole volume of numbers.

    Raises:
        RefusedError: It is another one.
    """
    size = _header_size(data)
    if size not in SIZES or len(data) < size:
        raise damaged("its header is broken")
    header: Any = SIZES[size](data[:size], check=False)  # type: ignore[no-untyped-call]
    magic = bytes(header["magic"])[:2]
    if magic != b"n+":
        if len(data) > max(SIZES) and magic != b"ni":
            raise damaged("its header is broken")
        raise unsupported(
            "is the header of a pair of files .hdr and .img, which is not read",
            "save both as one .nii or .nii.gz file",
        )
    if 3000 <= int(header["intent_code"]) < 3100:
        raise unsupported("is a CIFTI matrix and holds no picture", "name an image file instead")
    if header.get_data_dtype().kind == "c":
        raise unsupported("holds complex numbers", "save their magnitude as a volume of its own")
    shape = tuple(map(int, header.get_data_shape()))
    if not shape or min(shape) < 1:
        raise damaged(f"its header gives the shape {shape}")
    check_bytes(_end(header))
    return header


def _end(header: Any) -> int:
    """How many bytes header and values take."""
    values = math.prod(map(int, header.get_data_shape()))
    return int(header.get_data_offset()) + values * int(header.get_data_dtype().itemsize)


def _header_size(data: bytes) -> int:
    """What a file begins with, in either order of bytes."""
    orders: tuple[Any, ...] = ("little", "big")
    return next((n for n in (int.from_bytes(data[:4], order) for order in orders) if n in SIZES), 0)
