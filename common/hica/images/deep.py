"""16-bit PNG, and TIFF of more than 8 bits or other than unsigned numbers, as they are stored.

Pillow takes the high byte of 16-bit colours, and casts or does not know signed 8-bit, 16-bit float
and 64-bit numbers. imagecodecs decodes such PNG, and tifffile, which builds on it, such TIFF.
"""

import io
from dataclasses import dataclass, replace

import imagecodecs
import numpy as np
import tifffile

from hica.images.geometry import tiff_aspect, turned_note, upright
from hica.images.grey import Array, Mask, range_notes, to_8_bit, with_channels
from hica.images.refusals import check_bytes, check_size, unsupported

PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEPTH = 24
"""Where a PNG says how many bits it has."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""TIFF photometric interpretations."""
UNSIGNED, UNDEFINED = 1, 4
"""TIFF sample formats."""
ASSOCIATED, UNASSOCIATED = 1, 2
"""TIFF extra samples: opacity, with which the colours are multiplied or not."""
LOSSY = (6, 7, 22610, 33003, 33005, 34712, 50002)
"""TIFF compressions: JPEG, JPEG XR, JPEG 2000, JPEG XL."""
ORIENTATION, WIDTH_RESOLUTION, HEIGHT_RESOLUTION = 274, 282, 283
"""TIFF tags."""


@dataclass(frozen=True)
class Deep:
    """A picture in numbers, upright."""

    values: Array
    """`[H, W]` or `[H, W, 3]`."""
    full: float
    """The value that stands for white, by the type of the numbers."""
    inverted: bool = False
    """Whether low values are shown bright."""
    opacity: Array | None = None
    """`[H, W]` in 0..1."""
    padding: Mask | None = None
    """`[H, W]`: declared to be no part of the picture."""
    aspect: float = 1.0
    notes: tuple[str, ...] = ()
    lossy: bool = False

    def shown(self) -> Array:
        """uint8 of the shape of `values`, by the own range of what is to be seen, over black."""
        grey = to_8_bit(self.values, padding=self._outside())
        return self._over_black(255 - grey if self.inverted else grey).round().astype(np.uint8)

    def levels(self) -> Array:
        """The numbers as a mask has them: 0 for what is shown black."""
        return self._over_black(self.full - self.values if self.inverted else self.values)

    def all_notes(self) -> tuple[str, ...]:
        """What should be known of how `shown` came about."""
        see_through = self.opacity is not None and bool((self.opacity < 1).any())
        clear = (TRANSPARENT,) if see_through else ()
        return self.notes + clear + range_notes(self.values, self._outside())

    def _outside(self) -> Mask:
        """`[H, W]`: padding, no finite numbers, and what is transparent altogether."""
        known: Mask = np.isfinite(self.values)
        outside = np.logical_not(known.all(axis=-1) if known.ndim == 3 else known)
        if self.padding is not None:
            outside |= self.padding
        return outside if self.opacity is None else outside | (self.opacity == 0)

    def _over_black(self, values: Array) -> Array:
        values = np.where(with_channels(self._outside(), values), 0, values)
        return values if self.opacity is None else values * with_channels(self.opacity, values)


TRANSPARENT = "what is transparent is shown over black"


def stored(data: bytes, orientation: int) -> Deep | None:
    """The numbers of a 16-bit PNG, turned by its EXIF `orientation`, or deep TIFF; None for others.

    Raises:
        RefusedError: A TIFF of a form that is not read, or too large.
        Exception: Whatever the libraries make of a broken file.
    """
    if data[:8] == PNG and data[DEPTH] == 16:
        return _png(data, orientation)
    return _tiff(data) if data[:4] in TIFF else None


def _png(data: bytes, orientation: int) -> Deep:
    """A 16-bit PNG, whose size and checksums Pillow has looked at."""
    values = upright(imagecodecs.png_decode(data), orientation)
    if values.ndim == 2:
        return Deep(values, 65535)
    opacity = values[..., -1] / 65535 if values.shape[2] in (2, 4) else None
    colours = values[..., :3] if values.shape[2] > 2 else values[..., 0]
    return Deep(colours, 65535, opacity=opacity)


def _tiff(data: bytes) -> Deep | None:
    """The first page of a TIFF; None where Pillow keeps its numbers."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if page.bitspersample <= 8 and page.sampleformat in (UNSIGNED, UNDEFINED):
            return None
        check_size(page.imagewidth, page.imagelength)
        check_bytes(page.nbytes)
        if page.dtype is None or page.dtype.kind not in "uif":
            raise unsupported(
                "is a TIFF of complex or unknown numbers", "save the magnitude as 16-bit grey TIFF"
            )
        grey_or_rgb = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
        if not grey_or_rgb or page.axes not in ("YX", "YXS", "SYX"):
            raise unsupported(
                f"is a TIFF of {page.bitspersample} bits that is neither grey nor RGB (axes "
                f"{page.axes}, photometric interpretation {page.photometric})",
                "save it as 16-bit grey or RGB TIFF",
            )
        values, pages = page.asarray(), len(file.pages)
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    orientation = page.tags.valueof(ORIENTATION, 1)
    wide, high = (page.tags.valueof(tag) for tag in (WIDTH_RESOLUTION, HEIGHT_RESOLUTION))
    sign_bit = values.dtype.kind == "i"
    deep = Deep(
        upright(values, orientation),
        full=1.0 if values.dtype.kind == "f" else 2.0 ** (page.bitspersample - sign_bit) - 1,
        inverted=page.photometric == WHITE_IS_ZERO,
        aspect=tiff_aspect(wide, high, orientation),
        notes=(*turned_note(orientation), *first_of(pages)),
        lossy=page.compression in LOSSY,
    )
    if "GDAL_NODATA" in page.tags:
        padding = deep.values == page.nodata
        deep = replace(deep, padding=padding.all(axis=-1) if padding.ndim == 3 else padding)
    return _channels(deep, page) if deep.values.ndim == 3 else deep


def first_of(pages: int) -> tuple[str, ...]:
    """The note of a file with several pictures."""
    return (f"the first of {pages} pictures in the file is shown",) if pages > 1 else ()


def _channels(deep: Deep, page: tifffile.TiffPage) -> Deep:
    """Colours and opacity apart; of several grey channels the first."""
    values, count = deep.values, 3 if page.photometric == RGB else 1
    extra = page.extrasamples[0] if page.extrasamples else None
    if extra in (ASSOCIATED, UNASSOCIATED):
        opacity = np.clip(values[..., count] / deep.full, 0, 1)
        if extra == ASSOCIATED:
            values = values / np.where(opacity > 0, opacity, 1)[..., None]
        deep = replace(deep, opacity=opacity)
    elif values.shape[2] > count:
        note = f"channels 1 to {count} of {values.shape[2]} are shown"
        deep = replace(deep, notes=(*deep.notes, note))
    return replace(deep, values=values[..., :3] if count == 3 else values[..., 0])
