"""A compressed DICOM frame, looked at before it is decoded.

A decoder believes the size that stands in the frame, and some fill up what is cut off with grey.
"""

from hica.images.refusals import damaged

JPEG_START, JPEG_2000_START, END = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd9"
SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
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


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG or JPEG-LS stream."""
    at = 2
    while at + 9 < len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in SIZES:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(
                frame[at + 7 : at + 9], "big"
            )
        if marker == SCAN:
            break
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise damaged("the compressed frame has no header")
