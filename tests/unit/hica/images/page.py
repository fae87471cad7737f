"""docs/images.md: its tables are made of files that are read here, so that they cannot be wrong.

python -m tests.unit.hica.images.page docs/images.md
"""

import re
import sys
from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pydicom
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian
from tests.unit.hica.images.kinds import KINDS
from tests.unit.hica.images.shipped import files

from hica.errors import DataError
from hica.images.decode import Picture, decode_picture, read_picture

FORMATS, SYNTAXES, SHIPPED = "formats", "transfer-syntaxes", "shipped"
PLACE = re.compile(r"(<!-- (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str, names: Collection[str] = (FORMATS, SYNTAXES, SHIPPED)) -> str:
    """The page, with the tables of these names made anew between their comments."""
    tables = {FORMATS: formats, SYNTAXES: syntaxes, SHIPPED: refused}

    def made(found: re.Match[str]) -> str:
        name = found[2]
        return f"{found[1]}{tables[name]()}\n{found[3]}" if name in names else found[0]

    return PLACE.sub(made, page)


def formats() -> str:
    """Every kind of file, and what becomes of it."""
    rows = []
    for kind, make in KINDS.items():
        try:
            rows.append((kind, _told(decode_picture(make(), Path("FILE")))))
        except DataError as error:
            rows.append((kind, f"refused: {_reason(error)}"))
    return _table(("file", "what becomes of it"), rows)


def syntaxes() -> str:
    """Every transfer syntax that the standard has, and how many of the shipped files were read."""
    read, all_files = Counter(), Counter()
    for path in files().values():
        if path.read_bytes()[128:132] != b"DICM":
            continue
        dataset = pydicom.dcmread(path, force=True)
        if not any(name in dataset for name in ("PixelData", "FloatPixelData")):
            continue
        syntax = dataset.file_meta.get("TransferSyntaxUID", "")
        all_files[syntax] += 1
        read[syntax] += _outcome(path) is None
    rows, others = [], []
    for uid in map(UID, AllTransferSyntaxes):
        decoder = _PIXEL_DATA_DECODERS.get(uid, (None,))[0]
        if decoder is None or not decoder.is_available:
            others.append(uid.name)
            continue
        tried = f"{read[uid]} of {all_files[uid]}" if all_files[uid] else "-"
        rows.append((uid.name, str(uid), "read", tried))
    kinds = f"{len(others)} others: videos (MPEG, HEVC, SMPTE), JPEG 2000 part 2, JPIP"
    rows.append((kinds, "", f"refused: {_reason(_of_no_decoder())}", "-"))
    return _table(("transfer syntax", "UID", "pictures in it are", "test files read"), rows)


def _of_no_decoder() -> DataError:
    """What is said of a video."""
    data = KINDS["DICOM, window"]().replace(ExplicitVRLittleEndian.encode(), b"1.2.840.10008.1.2.7")
    try:
        decode_picture(data, Path("FILE"))
    except DataError as error:
        return error
    raise AssertionError


def refused() -> str:
    """The shipped files that are refused, and why; those with the same reason in one row."""
    reasons: dict[str, list[str]] = {}
    for name, path in files().items():
        reason = _outcome(path)
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    rows = []
    for reason, names in sorted(reasons.items(), key=lambda row: (-len(row[1]), row[0])):
        shown = ", ".join(f"`{name}`" for name in names[:3])
        rows.append((str(len(names)), shown + (", …" if len(names) > 3 else ""), reason))
    return _table(("files", "such as", "refused, as it"), rows)


@cache
def _outcome(path: Path) -> str | None:
    """Why a file is refused; None where it is read."""
    try:
        read_picture(path)
    except DataError as error:
        return _reason(error)
    return None


def _told(picture: Picture) -> str:
    notes = "; ".join(picture.notes)
    return f"read: {picture.way}" + (f". Said: {notes}" if notes else "")


def _reason(error: DataError) -> str:
    """Without the file's name, without what a library says in words of its version."""
    words = str(error).partition(": ")[2]
    if words.startswith("cannot be decoded"):
        words = re.sub(r" \(.*\)(?=[;:])", "", words, count=1)
    return words.removesuffix(", or take its row out of the manifest").removesuffix(
        " or take its row out of the manifest"
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [" | ".join(cells) for cells in (head, tuple("---" for _ in head), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(with_tables(place.read_text(encoding="utf-8")), encoding="utf-8")
