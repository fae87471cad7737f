"""looks: what an image looks like in numbers, and what is probably wrong with it.

A file can be decoded and yet show nothing: an empty frame, a window of another body part, a mask
in place of its image. The bounds here stand far from 4,500 real ultrasound and X-ray images, of
which the dimmest uses 119 grey levels, the darkest is black in half of its pixels, and the one with
the widest border fills 63 % of its frame.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

BLACK, WHITE = 2, 253
"""Grey levels up to which a pixel counts as black, and from which on as white."""
SPECK = 0.001
"""Share of the pixels that says nothing: a burned-in mark, a hot pixel."""
BLANK_LEVELS = 4
"""Grey levels that all pixels but specks lie within, in an image that shows nothing."""
DIM_LEVELS = 32
"""The same of an image that shows next to nothing."""
SATURATED = 0.95
"""Share of pixels that are black or white, from which on hardly any grey is left."""
PADDED_LEVELS, PADDED_SHARE = 85, 0.05
"""Grey levels left out between the darkest (or brightest) value and the next, where that value is
of as large a share of the pixels: a third of the range."""
FRAMED = 0.25
"""Share of the frame that the picture fills, below which the rest is an even border."""
SMALL_SIDE = 32
"""Pixels of the shorter side, below which a tower is shown a few enlarged squares."""
OBLONG = 4.0
"""Longer side over shorter one, from which on a square cannot show it."""


@dataclass(frozen=True)
class Flag:
    """Something that is probably wrong with an image."""

    name: str
    """In a few words, for the contact sheet and for JSON."""
    blank: bool
    """Whether nobody could see anything in it."""
    remedy: str
    """What is likely the cause, and what to do."""


WINDOW = "the window, the rescale or one extreme pixel may have taken the rest with it"
ALL_BLACK = Flag("all black", True, f"{WINDOW}: export it anew, or take its row out")
ALL_WHITE = Flag("all white", True, f"{WINDOW}: export it anew, or take its row out")
ONE_GREY = Flag("one grey", True, "the frame is empty: export it anew, or take its row out")
TWO_GREYS = Flag(
    "two greys only", False, "this looks like a mask: if it is one, name it in the column mask"
)
NEARLY_BLACK = Flag("nearly all black", False, f"{WINDOW}: look at it on the contact sheet")
NEARLY_WHITE = Flag("nearly all white", False, f"{WINDOW}: look at it on the contact sheet")
NO_GREYS = Flag("hardly any grey", False, "the window is too narrow: export a wider one")
DIM = Flag(
    "very low contrast", False, "the window or the rescale is of something else: export it anew"
)
PADDING = Flag(
    "most of the range is padding",
    False,
    "a filling value far from all others takes up the grey levels: export it with a window, or "
    "with PixelPaddingValue",
)
BORDER = Flag(
    "mostly an even border", False, "the tower sees little of the picture: cut the border off"
)
SMALL = Flag("very small", False, "this may be a preview: export it at its full size")
THIN = Flag(
    "very oblong", False, "a square shows a part of it, or distorts it: cut it to what matters"
)
FLAGS = (
    *(ALL_BLACK, ALL_WHITE, ONE_GREY, TWO_GREYS, NEARLY_BLACK, NEARLY_WHITE, NO_GREYS, DIM),
    *(PADDING, BORDER, SMALL, THIN),
)
"""All of them, the worst first."""


@dataclass(frozen=True)
class Look:
    """What an image looks like."""

    width: int
    """In pixels, of the decoded picture."""
    height: int
    sha256: str
    """Of the decoded pixels and their shape: the same for two files that show the same."""
    flags: tuple[Flag, ...]

    @property
    def blank(self) -> bool:
        """Whether nobody could see anything in it."""
        return any(flag.blank for flag in self.flags)


def look_at(image: Image.Image) -> Look:
    """Measure an 8-bit RGB image."""
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(image.tobytes())
    return Look(image.width, image.height, digest.hexdigest(), tuple(_flags(image)))


def _flags(image: Image.Image) -> list[Flag]:
    """What is probably wrong with an image; of its greys the worst only."""
    grey = image.convert("L")
    shares = np.asarray(grey.histogram()) / (image.width * image.height)
    greys = _of_greys(shares)
    flags = [greys] if greys else []
    if greys is None and _is_framed(grey):
        flags.append(BORDER)
    short, long = sorted(image.size)
    flags += [SMALL] * (short < SMALL_SIDE) + [THIN] * (long >= OBLONG * short)
    return flags[:1] if flags and flags[0].blank else flags


def _of_greys(shares: npt.NDArray[np.float64]) -> Flag | None:
    """What the share [256] of each grey level says."""
    below = np.cumsum(shares)
    low, high = (int(np.searchsorted(below, share)) for share in (SPECK, 1 - SPECK))
    if high - low <= BLANK_LEVELS:
        return ALL_BLACK if high <= 16 else ALL_WHITE if low >= 239 else ONE_GREY
    levels = np.flatnonzero(shares)
    if len(levels) == 2:
        return TWO_GREYS
    black, white = below[BLACK], 1 - below[WHITE - 1]
    if black + white >= SATURATED:
        return NEARLY_BLACK if white < SPECK else NEARLY_WHITE if black < SPECK else NO_GREYS
    if high - low < DIM_LEVELS:
        return DIM
    gaps = ((levels[0], levels[1] - levels[0]), (levels[-1], levels[-1] - levels[-2]))
    if any(gap >= PADDED_LEVELS and shares[end] >= PADDED_SHARE for end, gap in gaps):
        return PADDING
    return None


def _is_framed(grey: Image.Image) -> bool:
    """Whether one even grey, the corner's, surrounds a small picture."""
    corner = int(np.asarray(grey.getpixel((0, 0))).item())
    even = [0 if abs(level - corner) <= BLANK_LEVELS else 255 for level in range(256)]
    box = grey.point(even).getbbox()
    if box is None:
        return False
    filled = (box[2] - box[0]) * (box[3] - box[1])
    return filled < FRAMED * grey.width * grey.height
