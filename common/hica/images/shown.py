"""What the reader of a format gives: a picture or a mask in the pixels of the file, upright."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hica.images.refusals import RefusedError

Array = npt.NDArray[Any]


class Shown(NamedTuple):
    """A picture."""

    pixels: Array
    """uint8 `[H, W]` or `[H, W, 3]`."""
    way: str
    """By which way it came to 8 bits, in words: the same for all files of a kind."""
    notes: tuple[str, ...] = ()
    """What was left out, passed over or chosen."""
    aspect: float = 1.0
    """Height over width of a pixel."""


class Marked(NamedTuple):
    """A mask."""

    inside: npt.NDArray[np.bool_]
    """`[H, W]`."""
    aspect: float = 1.0
    """Height over width of a pixel."""


def marked(levels: Array, full: float, lossy: bool = False) -> npt.NDArray[np.bool_]:
    """What a mask marks: all that is not zero, whatever number a label has.

    Two kinds of masks have values between, and are cut at half: those of a lossy format, whose
    compression leaves traces around every edge, at half of `full`; and probabilities (fractions
    within 0..1), at one half.

    Args:
        levels: `[H, W]`, or `[H, W, C]`, of which the highest channel counts.
        full: The value that is shown white.
        lossy: Whether the format keeps values only roughly.

    Raises:
        RefusedError: Lossy, and dark all over without being black: the numbers of labels are lost.
    """
    levels = levels.max(axis=-1) if levels.ndim == 3 else levels
    if lossy:
        inside = levels >= full / 2
        if levels.any() and not inside.any():
            raise RefusedError(
                "the mask is nowhere as bright as half of white, and lossy compression does not "
                "keep small numbers; save it as PNG"
            )
        return np.asarray(inside)
    if levels.dtype.kind == "f":
        finite = np.where(np.isfinite(levels), levels, 0)
        if finite.min() >= 0 and finite.max() <= 1 and (finite % 1).any():
            return np.asarray(finite >= 0.5)
        return np.asarray(finite != 0)
    return np.asarray(levels != 0)
