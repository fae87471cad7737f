"""Refusals: why a file gives no picture, and the remedy of each cause.

A reader of a format raises a `RefusedError` without the file's name, which `decode` puts in front.
What libraries raise is taken for damage: only that is mended by copying the file again.
"""

MOST_PIXELS = 357_913_940
"""Of an image, Pillow's own limit: beyond it a small file could fill the memory."""
MOST_BYTES = 2 * 2**30
"""Of a file, and of what it unpacks to."""

OR_OUT = "or take its row out of the manifest"


class RefusedError(Exception):
    """A file that is not read: `str` says why and what to do, and stands after the file's name."""


def too_large(what: str) -> RefusedError:
    """A file beyond a limit."""
    return RefusedError(f"is too large: {what}; export it at a smaller size, {OR_OUT}")


def check_size(width: int, height: int) -> None:
    """Check the size of one picture, in pixels, before it is decoded.

    Raises:
        RefusedError: It has none, or more than `MOST_PIXELS`.
    """
    if width < 1 or height < 1:
        raise damaged(f"the picture is {width}×{height} px")
    if width * height > MOST_PIXELS:
        raise too_large(f"more than {MOST_PIXELS:,} px, which is the limit")


def check_bytes(count: int) -> None:
    """Check how many bytes are about to be unpacked.

    Raises:
        RefusedError: More than `MOST_BYTES`.
    """
    if count > MOST_BYTES:
        raise too_large(f"more than {MOST_BYTES:,} bytes unpacked, which is the limit")


def damaged(why: str) -> RefusedError:
    """A file that is cut short or broken."""
    return RefusedError(
        f"cannot be decoded ({why}); the file is truncated or damaged: copy it again from its "
        f"source {OR_OUT}"
    )


def unsupported(what: str, remedy: str) -> RefusedError:
    """A file of a form that is not read."""
    return RefusedError(f"{what}; {remedy}, {OR_OUT}")
