"""sniff: what a file is by its first bytes; hospital exports are often named without suffix."""

import gzip
import warnings
import zlib
from pathlib import Path

ENOUGH = 512
"""Bytes that tell: the longest mark stands at byte 344, in a NIfTI header."""

PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
"""What pictures begin with."""
FIRST_GROUPS = (b"\x02\0", b"\x08\0")
"""Of the elements that a DICOM file without preamble begins with: file meta, or identifying."""
VALUES = (b"AE", b"AS", b"CS", b"DA", b"DT", b"LO", b"OB", b"PN", b"SH", b"TM", b"UI", b"UL", b"US")
"""How such an element's value is written, where the file says so."""


def kind_of(path: Path) -> str | None:
    """What kind of image a file is: `DICOM`, `NIfTI`, `PNG`, …; None where it is none.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return kind_of_bytes(file.read(ENOUGH))


def kind_of_bytes(head: bytes) -> str | None:
    """`kind_of` a file that begins with these bytes, `ENOUGH` of them where it has as many."""
    if head[128:132] == b"DICM":  # first: its preamble may be that of a TIFF
        return "DICOM"
    if head[:2] == b"\x1f\x8b":
        return "NIfTI" if _is_nifti(_beginning_of(head)) else None
    if _is_nifti(head):
        return "NIfTI"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    for mark, kind in PICTURES.items():
        if head.startswith(mark):
            return kind
    return "DICOM" if _is_bare_dicom(head) else None


def holds_picture(path: Path) -> bool:
    """Whether a DICOM file has pixels: not a DICOMDIR, a report, a structure set."""
    import pydicom

    try:
        with warnings.catch_warnings(action="ignore"):
            data = pydicom.dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=["Rows"]
            )
    # A broken file makes the reader raise almost anything; whoever decodes it says what is wrong.
    except Exception:
        return True
    return "Rows" in data


def _is_nifti(head: bytes) -> bool:
    """Whether this is the header of a NIfTI-1 or NIfTI-2 file with its data."""
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def _beginning_of(head: bytes) -> bytes:
    """The first bytes of what is packed in a gzip file."""
    try:
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(head, ENOUGH)
    except (zlib.error, gzip.BadGzipFile):
        return b""


def _is_bare_dicom(head: bytes) -> bool:
    """Whether this is a data set without preamble: a first element of an even, short length."""
    if head[:2] not in FIRST_GROUPS or len(head) < 16:
        return False
    if head[4:6] in VALUES:
        return True
    length = int.from_bytes(head[4:8], "little")
    return length % 2 == 0 and length <= 64
