"""PNG, JPEG, TIFF and their kin → a picture or a mask.

Pillow decodes what has 8 bits. It would cast deeper numbers to 8 bits: those are left to `deep`.
"""

import io
import warnings
from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from hica.images.deep import PNG, TIFF, TRANSPARENT, Deep, first_of, stored
from hica.images.dicom_codestream import jpeg_kind
from hica.images.geometry import aspect_of, tiff_aspect, turned_note, upright
from hica.images.grey import OWN_RANGE, Array
from hica.images.refusals import MOST_PIXELS, RefusedError, damaged, too_large, unsupported
from hica.images.shown import Marked, Shown, marked

MAGIC: dict[str, tuple[bytes, ...]] = {
    "PNG": (PNG,),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": TIFF,
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "WEBP": (b"RIFF",),
    "JPEG2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"),
    "AVIF": (b"ftypavif", b"ftypavis"),
}
"""Format of Pillow's → how its files begin. Others start programs (EPS) or have no such mark."""
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's grey modes of more than 8 bits."""
WAYS = {"RGB": "8-bit RGB", "L": "8-bit grey", "1": "black and white"}
"""What is shown as it is, by Pillow's mode."""
LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
ORIENTATION, WIDTH_RESOLUTION, HEIGHT_RESOLUTION, COMPRESSION = 274, 282, 283, 259
"""Tags of EXIF and TIFF."""
JPEG_IN_TIFF = (6, 7)


def is_raster(data: bytes) -> bool:
    """Whether a file begins like one of these formats."""
    if data[4:12] in MAGIC["AVIF"]:  # after the length of this part
        return True
    if not any(data.startswith(mark) for marks in MAGIC.values() for mark in marks):
        return False
    if data[:4] == b"RIFF":  # sound and video begin so, too
        return data[8:12] == b"WEBP"
    if data[:2] == b"BM":  # so may a text
        return b"\0" in data[2:18]
    return data[:1] != b"P" or data[2:3].isspace()


def picture(data: bytes) -> Shown:
    """The first picture of a file, upright, over black where it is transparent.

    Raises:
        RefusedError: Of a form that is not read, damaged or too large.
        Exception: Whatever the libraries make of a broken file.
    """
    image = _opened(data)
    deep = _deep(image, data)
    if deep is not None:
        kind = "colour" if deep.values.ndim == 3 else "grey"
        way = f"{kind} of more than 8 bits, {OWN_RANGE}"
        return Shown(deep.shown(), way, deep.all_notes(), deep.aspect)
    assert image is not None
    way = WAYS.get(image.mode, f"{image.mode} converted to RGB")
    pixels, aspect, notes = _pixels(image)
    return Shown(pixels, way, notes, aspect)


def mask(data: bytes) -> Marked:
    """What the first picture of a file marks: see `marked`.

    Raises:
        RefusedError: See `picture` and `marked`.
        Exception: Whatever the libraries make of a broken file.
    """
    image = _opened(data)
    deep = _deep(image, data)
    if deep is not None:
        return Marked(marked(deep.levels(), deep.full, deep.lossy), deep.aspect)
    assert image is not None
    lossy = _is_lossy(image, data)
    pixels, aspect, _ = _pixels(image)
    inside = marked(pixels, 255, lossy)
    if image.mode == "P" and not inside.any():  # a palette that was never filled in
        inside = np.asarray(image) != 0
    return Marked(inside, aspect)


def _opened(data: bytes) -> Image.Image | None:
    """The first picture, not yet decoded; None for a TIFF that Pillow does not know."""
    with warnings.catch_warnings():
        # The limit is where it is an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            if data[:8] == PNG:  # decoding checks the sums of most of its parts only
                Image.open(io.BytesIO(data), formats=["PNG"]).verify()
            return Image.open(io.BytesIO(data), formats=list(MAGIC))
        except Image.DecompressionBombError:
            raise too_large(f"more than {MOST_PIXELS:,} px, which is the limit") from None
        except UnidentifiedImageError:
            if data[:4] in TIFF:
                return None
            raise _unknown_form(data) from None


def _unknown_form(data: bytes) -> RefusedError:
    """Why Pillow does not know a file that begins like one of its formats."""
    kind = jpeg_kind(data) if data[:2] == b"\xff\xd8" else ""
    if kind:
        remedy = "convert it to PNG, or put it into a DICOM file"
        return unsupported(f"is a JPEG of a kind that is not read by itself ({kind})", remedy)
    return damaged("its header is broken")


def _deep(image: Image.Image | None, data: bytes) -> Deep | None:
    """The numbers of a picture of more than 8 bits; None of others."""
    orientation = 1 if image is None else _orientation(image)
    deep = stored(data, orientation)
    if deep is None and image is not None and image.mode in DEEP_MODES:
        values = upright(np.asarray(image), orientation)
        deep = Deep(values, 65535, notes=first_of(_count(image)), lossy=_is_lossy(image, data))
    if deep is None or image is None or image.format == "TIFF":
        return deep
    return replace(deep, notes=(*turned_note(orientation), *deep.notes, *_oblong_note(image)))


def _pixels(image: Image.Image) -> tuple[Array, float, tuple[str, ...]]:
    """uint8 `[H, W, 3]`, the aspect of a pixel, and notes."""
    orientation, aspect = _orientation(image), 1.0
    notes = turned_note(orientation) + first_of(_count(image))
    if image.format == "TIFF":
        wide, high = (image.tag_v2.get(tag) for tag in (WIDTH_RESOLUTION, HEIGHT_RESOLUTION))  # type: ignore[attr-defined]
        aspect = tiff_aspect(wide, high, orientation)
    else:
        notes += _oblong_note(image)
    image.load()  # Pillow decodes lazily; here is where a truncated file is found out
    pixels = np.asarray(image.convert("RGB"))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba.getchannel("A")).min() < 255:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            pixels = np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))
            notes += (TRANSPARENT,)
    if image.format != "TIFF":  # Pillow turns those itself
        pixels = upright(pixels, orientation)
    return pixels, aspect, notes


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, to be asked before Pillow decodes; 1 where there is none to be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block, of which the picture is independent
        return 1


def _count(image: Image.Image) -> int:
    """How many pictures a file has."""
    return int(getattr(image, "n_frames", 1))


def _oblong_note(image: Image.Image) -> tuple[str, ...]:
    """A note where PNG or JPEG say that pixels are not square, which most programs pass over."""
    info = image.info
    wide, high = info.get("dpi") or info.get("aspect") or info.get("jfif_density") or (1, 1)
    if aspect_of(wide, high) == 1:
        return ()
    return ("its resolution differs along both sides, and is not followed in this format",)


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    """Whether values are kept only roughly."""
    if image.format == "TIFF":
        return image.tag_v2.get(COMPRESSION) in JPEG_IN_TIFF  # type: ignore[attr-defined]
    # A lossless WebP keeps its pixels in a part VP8L.
    return image.format in LOSSY or (image.format == "WEBP" and b"VP8 " in data[:4096])
