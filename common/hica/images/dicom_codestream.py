"""A compressed stream, as of a DICOM frame, looked at before it is decoded.

A decoder believes the size that stands in the frame, and some fill up what is cut off with grey.
"""

from hica.images.refusals import damaged

JPEG_START, JPEG_2000_START, END = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd9"
JPEG_LS, LOSSLESS = 0xF7, (0xC3, 0xC7, 0xCB, 0xCF)
SIZES = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG and JPEG-LS that are followed by the size (SOF)."""
SCAN = 0xDA


def check_frame(frame: bytes, rows: int, columns: int) -> None:
    """Check that a JPEG, JPEG-LS or JPEG 2000 frame is of the size the data set says, and whole.

    Frames of other kinds are passed over.

    Raises:
        RefusedError: It is of another size, or cut short.
    """
    if frame[:4] == JPEG_2000_START:
        width, height, left, top = (
            int.from_bytes(frame[at : at + 4], "big") for at in (8, 12, 16, 20)
        )
        found = (height - top, width - left)
    elif frame[:2] == JPEG_START:
        found = _jpeg_size(frame)
    else:
        return
    # Rows of 0 in JPEG stand at its end.
    if found[1] != columns or found[0] not in (0, rows):
        raise damaged(
            f"the compressed frame is {found[1]}×{found[0]} px, but the tags Columns and Rows say "
            f"{columns}×{rows} px"
        )
    if END not in frame[-64:]:  # some writers pad the frame
        raise damaged("the compressed frame has no end")


def jpeg_kind(stream: bytes) -> str:
    """What kind of JPEG a stream is, where it is none that every program reads; else empty."""
    header = _header_at(stream)
    if header is None:
        return ""
    marker, bits = stream[header + 1], stream[header + 4]
    named = {JPEG_LS: "JPEG-LS", **dict.fromkeys(LOSSLESS, "lossless JPEG")}
    return named.get(marker) or (f"{bits} bits" if bits != 8 else "")


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG or JPEG-LS stream."""
    header = _header_at(frame)
    if header is None:
        raise damaged("the compressed frame has no header")
    rows, columns = (frame[header + at : header + at + 2] for at in (5, 7))
    return int.from_bytes(rows, "big"), int.from_bytes(columns, "big")


def _header_at(stream: bytes) -> int | None:
    """Where the header that says bits and size begins; None without one before the scan."""
    at = 2
    while at + 9 < len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in SIZES:
            return at
        if marker == SCAN:
            break
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
