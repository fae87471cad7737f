"""Is a DICOM file whole, and the one that was asked for? Walked through element by element.

Values are skipped, not read: a file of any size takes the same memory.
"""

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import data_element_generator, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from hica_client.pacs.errors import LostInstanceError

SOP_INSTANCE, STUDY_INSTANCE, TRANSFER_SYNTAX = 0x00080018, 0x0020000D, 0x00020010
ROWS = 0x00280010
PIXELS = {0x7FE00010, 0x7FE00008, 0x7FE00009, 0x00287FE0}
"""Pixel data of whole numbers, of the two kinds of reals, and a place to have them from."""
_LONGEST_UID = 128
_CHUNK = 1 << 16

NOT_DICOM = (
    "came as something that is no DICOM file; look at the image in the PACS, and if it is sound "
    "there, ask its administrator what the service sends"
)
CUT_SHORT = "came cut short each time; ask the PACS's administrator whether they are whole there"
OTHER = (
    "came as another image or study than was asked for; ask the PACS's administrator, the archive "
    "mixes them up"
)
TOO_LARGE = (
    "are larger than max_instance_bytes in [pacs] of the site file allows; raise it, or leave such "
    "series out"
)


def check_whole(path: Path, sop: str, study: str, most: int) -> None:
    """Check that `path` is a whole DICOM file with these two UIDs.

    `most` is the size in bytes that it may come to where its data set is compressed as a whole.

    Raises:
        LostInstanceError: It is not.
    """
    try:
        with path.open("rb") as file:
            found = _walk_file(file, most)
    except LostInstanceError:
        raise
    except EOFError:
        raise LostInstanceError(CUT_SHORT) from None
    except Exception:  # pydicom's own, and what it trips over in bytes that are no DICOM
        raise LostInstanceError(NOT_DICOM) from None
    if (found.get(SOP_INSTANCE), found.get(STUDY_INSTANCE)) != (sop, study):
        raise LostInstanceError(OTHER)


def _walk_file(file: BinaryIO, most: int) -> dict[int, str]:
    """The UIDs of a file that is whole to its end.

    Raises:
        EOFError: It is not.
    """
    if read_preamble(file, force=True) is None:
        raise LostInstanceError(NOT_DICOM)
    meta = dict(_walk(file, implicit=False, little=True, group=2))
    syntax = meta.get(TRANSFER_SYNTAX)
    with _inflated(file, most) if syntax == DeflatedExplicitVRLittleEndian else _same(file) as data:
        found = dict(
            _walk(
                data,
                implicit=syntax == ImplicitVRLittleEndian,
                little=syntax != ExplicitVRBigEndian,
            )
        )
    if ROWS in found and not PIXELS & found.keys():
        raise EOFError
    return found


def _walk(
    file: BinaryIO, *, implicit: bool, little: bool, group: int | None = None
) -> Iterator[tuple[int, str]]:
    """Tags from here on, with the values of UIDs, either of one group or to the end of the file.

    Raises:
        EOFError: The file ends before an element does.
    """
    start = file.tell()
    size = file.seek(0, 2)
    end = file.seek(start)
    elements = data_element_generator(
        file,
        implicit,
        little,
        stop_when=lambda tag, _vr, _length: group is not None and tag >> 16 != group,
        defer_size=0,
    )
    for element in elements:
        end = file.tell()
        if end > size:
            raise EOFError
        value = ""
        length = getattr(element, "length", None)  # of a sequence: none
        if element.tag in (SOP_INSTANCE, STUDY_INSTANCE, TRANSFER_SYNTAX) and length is not None:
            file.seek(element.value_tell)  # type: ignore[union-attr]  # a raw element's
            value = file.read(min(length, _LONGEST_UID)).decode("ascii", "replace").strip("\0 ")
            file.seek(end)
        yield int(element.tag), value
    if group is None:
        file.seek(end)
        if file.read(_CHUNK).strip(b"\0"):  # the beginning of an element; zeros are padding
            raise EOFError


@contextmanager
def _same(file: BinaryIO) -> Iterator[BinaryIO]:
    yield file


@contextmanager
def _inflated(file: BinaryIO, most: int) -> Iterator[BinaryIO]:
    """The rest of a file, inflated on disk.

    Raises:
        EOFError: It ends too early.
        LostInstanceError: It comes to more than `most` bytes.
    """
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    with tempfile.TemporaryFile() as data:
        while not machine.eof:
            packed = machine.unconsumed_tail or file.read(_CHUNK)
            if not packed:
                raise EOFError
            data.write(machine.decompress(packed, _CHUNK))
            if data.tell() > most:
                raise LostInstanceError(TOO_LARGE, again=False)
        data.seek(0)
        yield data
