"""Numbers of any type and range → grey levels of 8 bits."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

OWN_RANGE = "scaled by the image's own range"
ROWS_AT_ONCE = 256
"""Bounds what is held as float64."""
FEW = 0.005
"""Share of an image, from which on one value at an end of the range is noted as padding."""


def to_8_bit(
    values: Array,
    black: float | None = None,
    white: float | None = None,
    padding: Mask | None = None,
) -> Array:
    """Scale `black`..`white` to 0..255, where not given the own range of `values`.

    NaN, infinity and `padding` count for no range and become black; so does all of an image whose
    values are the same.

    Args:
        values: `[H, W]` or `[H, W, C]`; the range is one for all channels.
        black: The value that becomes 0.
        white: The value that becomes 255.
        padding: `[H, W]`, True where there is no image.

    Returns:
        uint8, of the shape of `values`.
    """
    if black is None or white is None:
        black, white = own_range(values, padding) or (0.0, 0.0)
    grey = np.zeros(values.shape, np.uint8)
    # Halves are exact, and the difference of two float64 of any size is then finite.
    low, span = black / 2, white / 2 - black / 2
    if span <= 0:
        return grey
    for top in range(0, len(values), ROWS_AT_ONCE):
        block = slice(top, top + ROWS_AT_ONCE)
        halves = values[block].astype(np.float64) / 2
        scaled = np.clip((halves - low) / span, 0, 1)
        scaled[~np.isfinite(halves)] = 0
        grey[block] = np.round(scaled * 255)
        if padding is not None:
            grey[block][padding[block]] = 0
    return grey


def own_range(values: Array, padding: Mask | None = None) -> tuple[float, float] | None:
    """Lowest and highest of the finite values outside `padding`; None where there are none."""
    kept = _kept(values, padding)
    return (float(kept.min()), float(kept.max())) if kept.size else None


def range_notes(values: Array, padding: Mask | None = None) -> tuple[str, ...]:
    """What to know of an own range: values that are no numbers, and one far from all others."""
    kept = _kept(values, padding)
    notes = []
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        notes.append("values that are not finite numbers are left out of the range and black")
    for end, other, sign in ((kept.min, kept.max, 1), (kept.max, kept.min, -1)):
        if not kept.size:
            break
        edge, far = end(), other()
        away = kept[kept != edge]
        if away.size == 0 or kept.size - away.size < FEW * kept.size:
            continue
        nearest = away.min() if sign > 0 else away.max()
        if nearest != far and sign * float(nearest) - sign * float(edge) > abs(
            float(far) / 2 - float(edge) / 2
        ):
            notes.append(
                f"most of the range is padding: {edge:g} is far from the nearest other value, "
                f"{nearest:g}, and the file does not declare it as padding"
            )
    return tuple(notes)


def with_channels(plane: Array, values: Array) -> Array:
    """`plane` `[H, W]`, with a last axis where `values` has channels."""
    return plane[..., None] if values.ndim == 3 else plane


def _kept(values: Array, padding: Mask | None) -> Array:
    kept = values if padding is None else values[~padding]
    return kept[np.isfinite(kept)] if kept.dtype.kind == "f" else kept.ravel()
