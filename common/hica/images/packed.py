"""Files packed by gzip: NIfTI mostly, at times DICOM."""

import gzip
import io

from hica.images.refusals import check_bytes

GZIP = b"\x1f\x8b"
HEAD = 1024
"""Bytes by which a file is known."""
CHUNK = 2**24


def is_packed(data: bytes) -> bool:
    """Whether a file is packed by gzip."""
    return data[:2] == GZIP


def head_of(data: bytes) -> bytes:
    """The first bytes of what is packed.

    Raises:
        OSError, EOFError, zlib.error: It is broken.
    """
    with gzip.open(io.BytesIO(data)) as file:
        return file.read(HEAD)


def unpacked(data: bytes, kept: int | None = None) -> bytes:
    """What is packed, of it the first `kept` bytes; all is read, as its sum stands at the end.

    Raises:
        RefusedError: Too large.
        OSError, EOFError, zlib.error: It is broken.
    """
    content, size = bytearray(), 0
    with gzip.open(io.BytesIO(data)) as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            check_bytes(size)
            if kept is None or len(content) < kept:
                content += chunk
    return bytes(content[:kept])
