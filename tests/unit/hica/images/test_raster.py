"""PNG, JPEG, TIFF and their kin."""

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile
from tests.unit.hica.images.made import RAMP, grey, notes, own_range, pillow_file, way

from hica.errors import DataError
from hica.images.decode import decode_picture, read_image


def test_8_bit_grey_is_left_as_it_is(tmp_path):
    np.testing.assert_array_equal(grey(pillow_file(tmp_path / "a.png", RAMP)), RAMP)


def test_colour_is_left_as_it_is(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = pillow_file(tmp_path / "a.png", colours)
    np.testing.assert_array_equal(np.asarray(read_image(path)), colours)
    assert notes(path) == ""


def rgba(opacity, depth=np.uint8):
    array = np.full((6, 8, 4), np.iinfo(depth).max, depth)
    array[:3, :, :3] //= 4
    array[..., 3] = (np.asarray(opacity) * np.iinfo(depth).max).round()
    return array


def test_what_is_transparent_is_over_black(tmp_path):
    opaque = pillow_file(tmp_path / "opaque.png", rgba(1))
    np.testing.assert_array_equal(np.asarray(read_image(opaque)), rgba(1)[..., :3])
    assert notes(opaque) == ""
    half = pillow_file(tmp_path / "half.png", rgba(np.linspace(0, 1, 8)))
    expected = np.repeat(np.array([63, 255]), 3)[:, None] * np.linspace(0, 1, 8)
    assert np.abs(grey(half) - expected).max() <= 1
    assert "transparent" in notes(half)


def test_an_index_can_be_transparent(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([200, 10, 10, 250, 250, 250, 5, 6, 7])
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(
        np.asarray(read_image(tmp_path / "a.png")), [[[200, 10, 10], [0, 0, 0], [5, 6, 7]]]
    )


# Deeper than 8 bits


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_every_kind(tmp_path, channels):
    """Colours keep to one range; opacity is no part of it."""
    import imagecodecs

    values = np.random.default_rng(0).integers(300, 3000, (6, 8, channels)).astype(np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values.squeeze()))
    colours = values[..., : channels - (channels in (2, 4))]
    shown = np.asarray(read_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(shown, np.broadcast_to(own_range(colours), shown.shape))
    kind = "colour" if channels > 2 else "grey"
    assert way(tmp_path / "a.png") == f"{kind} of more than 8 bits, scaled by the image's own range"


def test_16_bit_transparent_parts_are_black_and_count_for_no_range(tmp_path):
    import imagecodecs

    values = np.full((4, 4, 2), 65535, np.uint16)
    values[:, :2, 0] = [[100, 900]] * 4
    values[:, 2:, 1] = 0
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    np.testing.assert_array_equal(grey(tmp_path / "a.png"), [[0, 255, 0, 0]] * 4)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_16_bit_tiff(tmp_path, shape, compression):
    values = np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, predictor=False)
    shown = np.asarray(read_image(tmp_path / "a.tif"))
    expected = own_range(values).reshape(20, 30, -1)
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64"]
)
def test_tiff_of_every_number(tmp_path, dtype):
    values = (np.arange(48).reshape(6, 8) - (0 if dtype[0] == "u" else 20)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(grey(tmp_path / "a.tif"), own_range(values))


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiff_planes_and_opacity(tmp_path, planes):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 4)).astype(np.uint16)
    values[..., 3] = 65535
    stored = values if planes == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes,
        extrasamples=["unassalpha"],
    )  # fmt: skip
    np.testing.assert_array_equal(
        np.asarray(read_image(tmp_path / "a.tif")), own_range(values[..., :3])
    )


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32])
def test_white_is_zero_at_every_depth(tmp_path, dtype):
    values = (np.arange(48).reshape(6, 8) % 2 if dtype is bool else RAMP).astype(dtype)
    tifffile.imwrite(tmp_path / "black.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(grey(tmp_path / "white.tif"), 255 - grey(tmp_path / "black.tif"))


def test_values_that_are_no_numbers_are_black_and_count_for_no_range(tmp_path):
    values = RAMP.astype(np.float32)
    values[0, :3] = [np.nan, np.inf, -np.inf]
    tifffile.imwrite(tmp_path / "a.tif", values)
    expected = own_range(values[np.isfinite(values)])
    np.testing.assert_array_equal(grey(tmp_path / "a.tif")[np.isfinite(values)], expected)
    assert (grey(tmp_path / "a.tif")[0, :3] == 0).all()
    assert "not finite" in notes(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "white.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(grey(tmp_path / "white.tif")[np.isfinite(values)], 255 - expected)
    assert (grey(tmp_path / "white.tif")[0, :3] == 0).all()


def test_no_data_of_gdal(tmp_path):
    values = RAMP.astype(np.int16) + 100
    values[0] = -9999
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)])
    np.testing.assert_array_equal(grey(tmp_path / "a.tif")[1:], own_range(values[1:]))
    assert grey(tmp_path / "a.tif")[0].max() == 0


def test_the_first_of_several_channels_is_said(tmp_path):
    values = np.random.default_rng(0).integers(0, 900, (20, 30, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(grey(tmp_path / "a.tif"), own_range(values[..., 0]))
    assert "channels 1 to 1 of 5" in notes(tmp_path / "a.tif")


def test_12_bits_packed(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, bitspersample=12, photometric="minisblack")
    np.testing.assert_array_equal(grey(tmp_path / "a.tif"), own_range(values))


def test_avif(tmp_path):
    path = pillow_file(tmp_path / "a.avif", np.full((32, 48, 3), [200, 90, 10], np.uint8))
    assert np.abs(np.asarray(read_image(path)).astype(int) - [200, 90, 10]).max() < 6


def test_complex_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.complex64))
    with pytest.raises(DataError, match=r"a\.tif: is a TIFF of complex .* save the magnitude"):
        read_image(tmp_path / "a.tif")


def test_deep_tiff_of_other_colours(tmp_path):
    values = np.zeros((20, 30, 4), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="separated")
    with pytest.raises(DataError, match=r"16 bits that is neither grey nor RGB .* save it as"):
        read_image(tmp_path / "a.tif")


# More than one picture, turned ones, pixels that are not square


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_pictures(tmp_path, suffix):
    first, *others = [Image.fromarray(np.full((6, 8), level, np.uint8)) for level in (200, 90, 10)]
    lossless = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others, **lossless)
    assert (grey(tmp_path / f"a.{suffix}") == 200).all()
    assert "the first of 3 pictures" in notes(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "16.png", "16.tif"])
def test_exif_orientation(tmp_path, suffix, orientation):
    """As Pillow turns it; the marks are large enough to survive JPEG."""
    pixels = np.zeros((32, 48), np.uint8)
    pixels[:16, :16], pixels[16:, :16] = 250, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = suffix.startswith("16")
    image = Image.fromarray(pixels.astype(np.uint16) * 257 if deep else pixels)
    extra = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / f"a.{suffix}", exif=exif, **extra)
    turned = Image.fromarray(pixels)
    method = [None, None, 0, 3, 1, 5, 4, 6, 2][orientation]  # Pillow's numbers of the same
    turned = turned if method is None else turned.transpose(method)
    found = grey(tmp_path / f"a.{suffix}").astype(int)
    assert found.shape == (turned.height, turned.width)
    assert np.abs(found - np.asarray(turned).astype(int) * (255 / 250 if deep else 1)).max() < 9
    assert ("turned upright" in notes(tmp_path / f"a.{suffix}")) == (orientation > 1)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", [1, 6])
def test_tiff_resolution_makes_pixels_square(tmp_path, depth, orientation):
    """Twice as many rows to the inch as columns: pixels are half as high as they are wide."""
    tifffile.imwrite(
        tmp_path / "a.tif", RAMP.astype(depth), resolution=(100, 200),
        extratags=[(274, "H", 1, orientation, True)],
    )  # fmt: skip
    size = (16, 6) if orientation == 1 else (6, 16)
    assert read_image(tmp_path / "a.tif").size == size
    assert "not square" in notes(tmp_path / "a.tif")


def test_png_resolution_is_not_followed_but_said(tmp_path):
    pillow_file(tmp_path / "a.png", RAMP, dpi=(100, 200))
    assert read_image(tmp_path / "a.png").size == (8, 6)
    assert "resolution differs" in notes(tmp_path / "a.png")


def test_a_broken_exif_block_is_no_broken_picture(tmp_path):
    pillow_file(tmp_path / "a.png", RAMP, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(grey(tmp_path / "a.png"), RAMP)


def test_jpeg(tmp_path):
    path = pillow_file(tmp_path / "a.jpg", RAMP, quality=95)
    assert np.abs(grey(path).astype(int) - RAMP).max() < 12


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_its_own_range(tmp_path, suffix):
    deep = RAMP.astype(np.uint16) * 37 + 1000
    np.testing.assert_array_equal(
        grey(pillow_file(tmp_path / f"a.{suffix}", deep)), own_range(deep)
    )


def test_constant_16_bit_image_is_black(tmp_path):
    assert grey(pillow_file(tmp_path / "a.png", np.full((4, 4), 900, np.uint16))).max() == 0


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_file(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = pillow_file(tmp_path / f"cut.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: cannot be decoded .* copy it again"):
        read_image(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_flipped_byte_of_png_is_found_out(tmp_path):
    """Pillow decodes what it can: the sums of a PNG are looked at first."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = bytearray(pillow_file(tmp_path / "a.png", noise).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded .*checksum.* copy it again"):
        read_image(tmp_path / "a.png")


def test_header_without_a_picture(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"a\.gif: cannot be decoded .* copy it again"):
        read_image(tmp_path / "a.gif")


def test_too_many_pixels(tmp_path):
    data = bytearray(pillow_file(tmp_path / "a.png", RAMP).read_bytes())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png: is too large: more than 357,913,940 px.* export"):
        read_image(tmp_path / "a.png")


def test_too_many_pixels_in_a_tiff_that_pillow_does_not_know(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float64))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(50_000)
    with pytest.raises(DataError, match=r"a\.tif: is too large: more than 357,913,940 px"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("RGB", "8-bit RGB"),
        ("L", "8-bit grey"),
        ("1", "black and white"),
        ("RGBA", "RGBA converted to RGB"),
        ("P", "P converted to RGB"),
        ("I;16", "grey of more than 8 bits, scaled by the image's own range"),
    ],
)
def test_the_way_to_8_bits_is_told(tmp_path, mode, told):
    path = tmp_path / "a.png"
    Image.new(mode, (4, 3)).save(path)
    assert way(path) == told


@pytest.mark.parametrize(
    ("encode", "kind"),
    [
        (imagecodecs.jpegls_encode, "JPEG-LS"),
        (imagecodecs.ljpeg_encode, "lossless JPEG"),
        (lambda values: imagecodecs.jpeg8_encode(values // 16, bitspersample=12), "12 bits"),
    ],
)
def test_a_jpeg_that_is_not_read_by_itself_is_no_damage(encode, kind):
    values = (np.arange(32 * 32, dtype=np.uint16) * 60).reshape(32, 32)
    with pytest.raises(DataError, match=f"kind that is not read by itself .{kind}.; convert"):
        decode_picture(bytes(encode(values)), Path("a.jpg"))
