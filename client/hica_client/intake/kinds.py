"""What a file is, by its first bytes: exports are often named without a suffix, or with another."""

import zlib
from pathlib import Path
from typing import Literal

Kind = Literal["dicom", "picture", "numpy", "archive", "other"]

BEGINNING = 4096
"""Bytes that are looked at."""
PICTURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM"),
    *(b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51"),
)
ARCHIVES = (b"7z\xbc\xaf'\x1c", b"Rar!", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
HEADLESS_GROUPS = (b"\x02\x00", b"\x08\x00")
"""First group of a DICOM file without preamble, little endian."""


def kind_of(path: Path) -> Kind:
    """What a file is.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(BEGINNING)
    if head[128:132] == b"DICM" or _is_headless_dicom(head):
        return "dicom"
    if head.startswith(PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "picture"
    if _is_nifti(_unpacked(head)):
        return "picture"
    if head.startswith(b"PK\x03\x04"):
        return "numpy" if path.name.lower().endswith(".npz") else "archive"
    return "archive" if head.startswith(ARCHIVES) or head[257:262] == b"ustar" else "other"


def _is_headless_dicom(head: bytes) -> bool:
    """Whether it begins with a plausible first element of a data set."""
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = int.from_bytes(head[4:8], "little") <= 64
    return head[:2] in HEADLESS_GROUPS and head[3:4] == b"\0" and (explicit or implicit)


def _unpacked(head: bytes) -> bytes:
    """The beginning of what a gzip file holds; of another file, its own."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(31).decompress(head, BEGINNING)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")
