"""DICOM."""

import io
import re

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from tests.unit.hica.images.made import RAMP, dicom_file, grey, notes, own_range, refused, way

from hica.errors import DataError
from hica.images import dicom_pixels, refusals
from hica.images.decode import read_image
from hica.images.dicom_display import _windowed


def test_dicom_without_window_is_scaled_by_its_own_range(tmp_path):
    values = RAMP.astype(np.uint16) * 11 + 5
    np.testing.assert_array_equal(
        grey(dicom_file(tmp_path / "no-suffix", values)), own_range(values)
    )
    assert way(tmp_path / "no-suffix") == "DICOM, scaled by the image's own range"


def test_dicom_monochrome1_is_inverted(tmp_path):
    values = RAMP.astype(np.uint16)
    path = dicom_file(tmp_path / "a.dcm", values, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(grey(path), 255 - own_range(values))


def test_dicom_window_after_rescale(tmp_path):
    """Stored 1024 is 0 HU: the soft-tissue window 40/400 runs from -160 to 240 HU."""
    stored = np.array([[0, 864], [1064, 3000]], np.uint16)
    path = dicom_file(
        tmp_path / "ct.dcm", stored,
        RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 300], WindowWidth=[400, 1500],
    )  # fmt: skip
    np.testing.assert_array_equal(grey(path), [[0, 0], [128, 255]])


def test_dicom_window_is_not_stretched_to_the_values(tmp_path):
    path = dicom_file(
        tmp_path / "a.dcm", np.array([[25, 50]], np.uint8), WindowCenter=50.5, WindowWidth=101
    )
    np.testing.assert_array_equal(grey(path), [[64, 128]])
    assert way(path) == "DICOM, its first window"


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(tmp_path, function):
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_windowing

    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = dicom_file(
        tmp_path / "a.dcm", values, WindowCenter=100, WindowWidth=60, VOILUTFunction=function
    )
    dataset = dcmread(path)
    np.testing.assert_allclose(
        _windowed(values, dataset, 100, 60)[0] * 255, apply_windowing(values, dataset), atol=1e-9
    )


def test_dicom_lookup_table(tmp_path):
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [4, 10, 8]  # 4 entries, the first for stored value 10, of 8 bits
    table.add_new("LUTData", "US", [255, 200, 100, 0])
    path = dicom_file(
        tmp_path / "a.dcm",
        np.array([[0, 10, 11], [12, 13, 267]], np.uint16),
        VOILUTSequence=[table],
    )
    np.testing.assert_array_equal(grey(path), [[255, 255, 200], [100, 0, 0]])
    assert way(path) == "DICOM, its lookup table"


def test_dicom_colour_and_middle_frame(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        np.asarray(read_image(dicom_file(tmp_path / "rgb.dcm", colours))), colours
    )
    frames = np.stack([np.zeros_like(RAMP), RAMP, np.zeros_like(RAMP)])
    np.testing.assert_array_equal(grey(dicom_file(tmp_path / "cine.dcm", frames)), own_range(RAMP))
    assert way(tmp_path / "rgb.dcm") == "DICOM, colour"
    assert way(tmp_path / "cine.dcm").startswith("DICOM, middle frame, scaled by")


def test_truncated_dicom(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.dcm: cannot be decoded"):
        read_image(path)


# --- Range and padding ---------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("values", "tags"),
    [
        (RAMP.astype(np.int16) - 100, {"PixelPaddingValue": -2000}),
        (RAMP.astype(np.uint16) + 10, {"PixelPaddingValue": 65535}),
        (RAMP.astype(np.uint16) + 10, {"PixelPaddingValue": 0}),
        (RAMP.astype(np.uint16) + 100, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 90}),
        (RAMP.astype(np.uint16) + 100, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000}),
    ],
)
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 100, "WindowWidth": 300}])
def test_padding_counts_for_no_range_and_is_black(tmp_path, photometric, values, tags, window):
    padded = values.copy()
    padded[:2] = tags["PixelPaddingValue"]
    padded[2] = tags.get("PixelPaddingRangeLimit", tags["PixelPaddingValue"])
    path = dicom_file(
        tmp_path / "a", padded, PhotometricInterpretation=photometric,
        RescaleSlope=2, RescaleIntercept=-7, **tags, **window,
    )  # fmt: skip
    kept = values[3:].astype(float)
    if window:
        expected = np.round(np.clip((2 * kept - 7 - 99.5) / 299 + 0.5, 0, 1) * 255)
    else:
        expected = own_range(kept)
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(grey(path)[3:] - expected).max() <= 1
    assert grey(path)[:3].max() == 0


def test_padding_written_with_the_other_sign(tmp_path):
    """-2000 as an unsigned number, which pydicom reads by its VR."""
    values = RAMP.astype(np.int16) - 100
    values[:2] = -2000
    path = dicom_file(tmp_path / "a", values)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(path)
    np.testing.assert_array_equal(grey(path)[2:], own_range(values[2:]))


def test_padding_in_bits_that_are_said_to_be_unused(tmp_path):
    """63536 in 12 bits would be 2096, a grey of the image."""
    values = RAMP.astype(np.uint16) + 2000
    assert (values == 63536 % 4096).sum() == 0
    values[5, 0] = 2096
    values[:2] = 63536
    path = dicom_file(tmp_path / "a", values, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    np.testing.assert_array_equal(grey(path)[2:], own_range(values[2:]))
    assert grey(path)[:2].max() == 0


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_float_pixels(tmp_path, keyword):
    values = (RAMP / 7 - 3).astype(np.float32 if keyword[0] == "F" else np.float64)
    padded = values.copy()
    padded[0], padded[1, :2] = -1000, [np.nan, np.inf]
    path = dicom_file(tmp_path / "a", RAMP.astype(np.uint16))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.BitsAllocated = values.itemsize * 8
    setattr(dataset, keyword, padded.tobytes())
    setattr(dataset, keyword.replace("Data", "PaddingValue"), -1000.0)
    dataset.save_as(path)
    assert np.abs(grey(path)[2:] - own_range(values[1:])[1:]).max() <= 256
    kept = padded[1:][np.isfinite(padded[1:])]
    np.testing.assert_array_equal(grey(path)[1:][np.isfinite(padded[1:])], own_range(kept))
    assert grey(path)[0].max() == 0
    assert (grey(path)[1, :2] == 0).all()


def test_constant_values(tmp_path):
    path = dicom_file(tmp_path / "a", np.full((4, 4), 900, np.uint16), PixelPaddingValue=900)
    assert grey(path).max() == 0


# --- Palette and colour --------------------------------------------------------------------------


def palette(first=0, bits=16, entries=256, step=100, signed=False):
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    table = (np.arange(entries) * step % 2**bits).astype("<u2" if bits == 16 else "u1")
    for shift, name in enumerate(("Red", "Green", "Blue")):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [entries % 2**16, first, bits]
        tags[f"{name}PaletteColorLookupTableData"] = np.roll(table, shift).tobytes()
    return tags, np.stack([np.roll(table, shift) for shift in range(3)], axis=-1)


@pytest.mark.parametrize(("bits", "full", "step"), [(16, 65535, 100), (8, 255, 1)])
def test_palette_is_not_stretched(tmp_path, bits, full, step):
    tags, table = palette(bits=bits, step=step)
    shown = np.asarray(read_image(dicom_file(tmp_path / "a", RAMP, **tags)))
    np.testing.assert_array_equal(shown, np.round(table[RAMP] / full * 255))


def test_indices_beyond_a_palette_take_its_ends(tmp_path):
    tags, table = palette(first=50, entries=100, bits=8, step=1)
    values = RAMP.astype(np.uint16) * 5  # beyond 8 bits, too
    shown = np.asarray(read_image(dicom_file(tmp_path / "a", values, **tags)))
    np.testing.assert_array_equal(shown, table[np.clip(values.astype(int) - 50, 0, 99)])


def test_a_palette_of_8_bits_that_says_16(tmp_path):
    tags, table = palette(step=1)
    path = dicom_file(tmp_path / "a", RAMP, **tags)
    np.testing.assert_array_equal(np.asarray(read_image(path)), table[RAMP])
    assert "8 bits, though it says 16" in notes(path)


def test_a_palette_that_is_missing(tmp_path):
    path = dicom_file(tmp_path / "a", RAMP, PhotometricInterpretation="PALETTE COLOR")
    assert re.search(r"Red Palette .* Data \(0028,1201\) is missing or empty", refused(path))


COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_colours_are_scaled_by_their_bits(tmp_path, bits):
    values = COLOURS.astype(np.uint16) * (2**bits // 256)
    path = dicom_file(tmp_path / "a", values, BitsStored=bits, HighBit=bits - 1)
    expected = np.round(values / (2**bits - 1) * 255)
    np.testing.assert_array_equal(np.asarray(read_image(path)), expected)


def test_planes_of_colour(tmp_path):
    path = dicom_file(
        tmp_path / "a", COLOURS, PlanarConfiguration=1,
        PixelData=np.moveaxis(COLOURS, -1, 0).tobytes(),
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(read_image(path)), COLOURS)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_luminance_and_chrominance(tmp_path, photometric):
    """By the equations of PS3.3, C.7.6.3.1.2."""
    r, g, b = (np.full((6, 8), level, float) for level in (200, 120, 40))
    ybr = np.stack(
        [0.299 * r + 0.587 * g + 0.114 * b, 128 + (b * 0.5 - 0.1687 * r - 0.3313 * g),
         128 + (0.5 * r - 0.4187 * g - 0.0813 * b)], axis=-1,
    ).round().astype(np.uint8)  # fmt: skip
    data = ybr.tobytes()
    if photometric == "YBR_FULL_422":
        pairs = ybr.reshape(-1, 2, 3)
        data = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], -1)
        data = data.tobytes()
    path = dicom_file(tmp_path / "a", ybr, PhotometricInterpretation=photometric, PixelData=data)
    assert np.abs(np.asarray(read_image(path)).astype(int) - [200, 120, 40]).max() <= 1


@pytest.mark.parametrize(
    ("photometric", "values"),
    [("HSV", COLOURS), ("MONOCHROME2", COLOURS), ("RGB", RAMP), ("YBR_FULL", COLOURS * 2**4)],
)
def test_colours_that_are_not_read(tmp_path, photometric, values):
    values = values.astype(np.uint16) if photometric == "YBR_FULL" else values
    said = refused(dicom_file(tmp_path / "a", values, PhotometricInterpretation=photometric))
    assert re.search(rf"{photometric}.*; export it as RGB", said)


# --- Bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_what_lies_in_unused_bits_is_no_value(tmp_path, signed):
    values = (RAMP.astype(np.int16) * 8 - (1000 if signed else 0)) & 0x0FFF
    dirty = values | np.int16(0x3000)
    path = dicom_file(tmp_path / "a", dirty.view(np.int16 if signed else np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    np.testing.assert_array_equal(grey(path), own_range(RAMP))


def test_values_in_the_high_bits(tmp_path):
    values = RAMP.astype(np.uint16) * 7
    path = dicom_file(
        tmp_path / "a", values << 4, BitsStored=12, HighBit=15, WindowCenter=500, WindowWidth=900
    )
    expected = np.round(np.clip((values - 499.5) / 899 + 0.5, 0, 1) * 255)
    np.testing.assert_array_equal(grey(path), expected)


def test_one_bit(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (3, 6, 8), dtype=np.uint8)
    path = dicom_file(
        tmp_path / "a", bits, BitsAllocated=1, BitsStored=1, HighBit=0,
        PixelData=np.packbits(bits, bitorder="little").tobytes(),
    )  # fmt: skip
    np.testing.assert_array_equal(grey(path), bits[1] * 255)
    assert way(path) == "DICOM, middle frame, black and white"


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize(
    ("syntax", "order"),
    [(ImplicitVRLittleEndian, "<"), (ExplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">"),
     (DeflatedExplicitVRLittleEndian, "<"), (RLELossless, "<")],
)  # fmt: skip
def test_orders_of_bytes_and_kinds_of_numbers(tmp_path, dtype, syntax, order):
    if syntax == RLELossless and dtype.endswith("4"):
        pytest.skip("RLE of 32 bits is against the standard")
    values = (RAMP.astype(int) // 2 - (20 if dtype[0] == "i" else 0)).astype(f"{order}{dtype}")
    path = dicom_file(tmp_path / "a", values, syntax)
    np.testing.assert_array_equal(grey(path), own_range(values.astype(int)))


@pytest.mark.parametrize("kept", ["no preamble", "no header", "no transfer syntax"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_that_begin_otherwise(tmp_path, kept, syntax):
    values = RAMP.astype(np.uint16) * 7
    path = dicom_file(tmp_path / "a", values, syntax, Modality="CT")
    data = path.read_bytes()
    if kept == "no preamble":
        data = data[132:]
    elif kept == "no header":
        data = data[132 + 12 + int.from_bytes(data[140:144], "little") :]
    else:
        uid = syntax.encode() + b"\0" * (len(syntax) % 2)
        element = b"\x02\0\x10\0UI" + len(uid).to_bytes(2, "little")
        data = data.replace(element + uid, element[:-2] + b"\0\0")
        data = data[:140] + (
            int.from_bytes(data[140:144], "little") - len(uid)
        ).to_bytes(4, "little") + data[144:]  # fmt: skip
    path.write_bytes(data)
    np.testing.assert_array_equal(grey(path), own_range(values))


# --- Window and tables ---------------------------------------------------------------------------


def window(values, centre, width):
    """LINEAR of PS3.3, C.11.2.1.2.1, value by value."""
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    shown = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.round(np.where(values <= low, 0, np.where(values > high, 255, shown)))


def item(**values):
    made = pydicom.Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"WindowWidth": 900}, "a width but no centre"),
        ({"WindowWidth": -900, "WindowCenter": 400}, "a width of -900, and is not used"),
        ({"WindowWidth": 0, "WindowCenter": 400}, "a width of 0, and is not used"),
        ({"WindowWidth": "", "WindowCenter": 400}, ""),
        ({"WindowWidth": "", "WindowCenter": ""}, ""),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, ""),
        ({"VOILUTSequence": [], "ModalityLUTSequence": []}, ""),
        ({"PixelPaddingValue": None, "PixelSpacing": ""}, ""),
    ],
)
def test_tags_that_say_nothing(tmp_path, tags, said):
    values = RAMP.astype(np.uint16) * 7
    path = dicom_file(tmp_path / "a", values, **tags)
    np.testing.assert_array_equal(grey(path), own_range(values))
    assert said in notes(path)
    assert bool(said) == bool(notes(path))


def test_several_windows_are_said(tmp_path):
    values = RAMP.astype(np.uint16) * 7
    path = dicom_file(tmp_path / "a", values, WindowCenter=[500, 90], WindowWidth=[900, 8])
    np.testing.assert_array_equal(grey(path), window(values, 500, 900))
    assert notes(path) == "the first of 2 windows is used"


def test_a_narrow_window_on_fractions(tmp_path):
    """PET: values in 0..1 after the rescale, where LINEAR would leave black and white only."""
    values = RAMP.astype(np.uint16)
    path = dicom_file(
        tmp_path / "a", values, RescaleSlope=0.001, WindowCenter=0.12, WindowWidth=0.24
    )
    assert np.abs(grey(path) - np.clip(values / 240, 0, 1) * 255).max() <= 0.51


def test_an_unknown_function_is_said(tmp_path):
    values = RAMP.astype(np.uint16)
    path = dicom_file(
        tmp_path / "a", values, WindowCenter=100, WindowWidth=100, VOILUTFunction="CUBIC"
    )
    np.testing.assert_array_equal(grey(path), window(values, 100, 100))
    assert "'CUBIC' is not known; LINEAR is used" in notes(path)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("WindowWidth", b"15 mm ", r"Window Width \(0028,1051\) holds '15 mm', which is no number"),
        ("RescaleSlope", b"1,000 ", r"Rescale Slope \(0028,1053\) holds '1,000'"),
        ("PixelSpacing", b"a\\b ", r"Pixel Spacing \(0028,0030\) holds 'a'"),
    ],
)
def test_numbers_that_are_none_are_named(tmp_path, tag, value, words):
    path = dicom_file(
        tmp_path / "a", RAMP, WindowWidth=7, WindowCenter=7, RescaleSlope=1, PixelSpacing=[1, 1]
    )
    dataset = pydicom.dcmread(path)
    place = dataset.get_item(tag)
    dataset[pydicom.datadict.tag_for_keyword(tag)] = place._replace(value=value, length=len(value))
    dataset.save_as(path)
    assert re.search(words + ".*; export the file again", refused(path))


def test_lookup_table_of_the_modality(tmp_path):
    table = item(LUTDescriptor=[4, 1, 16], ModalityLUTType="US")
    table.add_new("LUTData", "US", [10, 60, 20, 1000])
    values = np.array([[0, 1, 2, 3, 4, 9]], np.uint16)
    path = dicom_file(tmp_path / "a", values, ModalityLUTSequence=[table])
    np.testing.assert_array_equal(grey(path), own_range(np.array([[10, 10, 60, 20, 1000, 1000]])))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("vr", "bits"), [("US", 12), ("OW", 12), ("OW", 8)])
def test_lookup_table_of_values_below_zero(tmp_path, syntax, vr, bits):
    """Its first value is written as an unsigned number, as some devices do."""
    table = item()
    table.add_new("LUTDescriptor", "US", [8, 65536 - 4, bits])
    entries = np.array([0, 1, 3, 7, 15, 31, 63, 127]) * (32 if bits == 12 else 2)
    order = "<" if syntax.is_little_endian else ">"
    kind = "u1" if bits == 8 else f"{order}u2"
    table.add_new("LUTData", vr, list(entries) if vr == "US" else entries.astype(kind).tobytes())
    values = np.arange(-6, 6).reshape(2, 6)
    stored = values.astype(f"{order}i2")
    path = dicom_file(tmp_path / "a", stored, syntax, VOILUTSequence=[table], WindowWidth="")
    expected = np.round(entries[np.clip(values + 4, 0, 7)] / (2**bits - 1) * 255)
    np.testing.assert_array_equal(grey(path), expected)


# --- Frames --------------------------------------------------------------------------------------

FRAMES = np.random.default_rng(0).integers(0, 4000, (3, 6, 8)).astype(np.uint16)


def per_frame(frame):
    return item(
        FrameVOILUTSequence=[item(WindowCenter=1000 * (frame + 1), WindowWidth=1500)],
        PixelValueTransformationSequence=[item(RescaleSlope=frame + 1, RescaleIntercept=-frame)],
        PixelMeasuresSequence=[item(PixelSpacing=[frame + 1, 1])],
    )


@pytest.mark.parametrize("where", ["PerFrame", "Shared"])
def test_values_of_a_frame_come_before_those_of_the_file(tmp_path, where):
    groups = [per_frame(frame) for frame in range(3)] if where == "PerFrame" else [per_frame(1)]
    path = dicom_file(
        tmp_path / "a", FRAMES, WindowCenter=7, WindowWidth=7, RescaleSlope=9,
        **{f"{where}FunctionalGroupsSequence": groups},
    )  # fmt: skip
    rows = grey(path)
    assert rows.shape == (12, 8)
    expected = Image.fromarray(window(2.0 * FRAMES[1] - 1, 2000, 1500).astype(np.uint8))
    np.testing.assert_array_equal(rows, expected.resize((8, 12), Image.Resampling.BILINEAR))
    assert "frame 2 of 3 is shown" in notes(path)


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_only_the_middle_frame_is_decoded(tmp_path, monkeypatch, syntax):
    decoded = []
    real = dicom_pixels.pixel_array
    monkeypatch.setattr(
        dicom_pixels, "pixel_array", lambda *a, **k: decoded.append(k["index"]) or real(*a, **k)
    )
    path = dicom_file(tmp_path / "a", FRAMES, syntax)
    np.testing.assert_array_equal(grey(path), own_range(FRAMES[1]))
    assert decoded == [1]


# --- Square pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ({"PixelSpacing": [2, 1]}, (8, 12)),
        ({"PixelSpacing": [1, 3]}, (24, 6)),
        ({"PixelSpacing": [0.4, 0.401]}, (8, 6)),
        ({"ImagerPixelSpacing": [2, 1]}, (8, 12)),
        ({"NominalScannedPixelSpacing": [2, 1]}, (8, 12)),
        ({"PixelAspectRatio": [2, 1]}, (8, 12)),
        ({"PixelSpacing": [1, 1], "ImagerPixelSpacing": [2, 1]}, (8, 6)),
        ({"PixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]}, (8, 12)),
    ],
)
def test_square_pixels(tmp_path, tags, size):
    path = dicom_file(tmp_path / "a", RAMP, **tags)
    assert read_image(path).size == size
    assert ("not square" in notes(path)) == (size != (8, 6))
    assert ("no height and width" in notes(path)) == (0 in tags.get("PixelSpacing", []))


# --- What is no picture, what is missing ---------------------------------------------------------


def without_pixels(path, uid, **tags):
    dicom_file(path, RAMP, SOPClassUID=uid, **tags)
    dataset = pydicom.dcmread(path)
    for name in ("PixelData", "Rows", "Columns"):
        delattr(dataset, name)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage.*; export its pages"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR Storage.*; put its text into the"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "Presentation State.*; name the image that it is about"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set.*; export its contours as a mask"),
        ("1.2.840.10008.1.3.10", "Directory.*; name the image files that it lists"),
        ("1.2.3.4", "no SOP class that is known.*; name an image file"),
    ],
)
def test_dicom_that_holds_no_picture(tmp_path, uid, words):
    said = refused(without_pixels(tmp_path / "a", uid))
    assert re.search(rf"/a: is DICOM and holds no picture \(.*{words}", said)


def test_pixels_that_were_taken_out(tmp_path):
    said = refused(without_pixels(tmp_path / "a", "1.2.840.10008.5.1.4.1.1.2"))
    assert "holds no Pixel Data (7FE0,0010): it is cut short, or its pixels were taken out" in said


def test_encrypted_attributes(tmp_path):
    path = without_pixels(tmp_path / "a", "1.2.3", EncryptedAttributesSequence=[item()])
    assert "is encrypted and shows no picture; decrypt it first" in refused(path)


def test_pixels_that_are_elsewhere(tmp_path):
    path = without_pixels(tmp_path / "a", "1.2.3", PixelDataProviderURL="https://a/b")
    assert "the address of its pixels instead of them (JPIP)" in refused(path)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("Rows", None, r"Rows \(0028,0010\) is missing"),
        ("Columns", "", r"Columns \(0028,0011\) is empty"),
        ("BitsAllocated", None, r"Bits Allocated \(0028,0100\) is missing"),
        ("BitsAllocated", 12, r"12 bits for a value by Bits Allocated .*packed"),
        ("BitsStored", 17, r"Bits Stored \(0028,0101\) is 17, of 16"),
        ("PhotometricInterpretation", None, r"Photometric Interpretation .* is missing"),
        ("PhotometricInterpretation", "", r"Photometric Interpretation .* is empty"),
        ("Rows", 0, "the picture is 8×0 px"),
        ("Rows", 60000, "is too large: more than 357,913,940 px"),
        ("PixelData", b"", r"Pixel Data \(7FE0,0010\) is empty"),
        ("NumberOfFrames", -3, r"Number of Frames \(0028,0008\) is -3"),
    ],
)
def test_tags_that_are_needed_are_named(tmp_path, tag, value, words):
    path = dicom_file(tmp_path / "a", RAMP.astype(np.uint16), NumberOfFrames=1)
    dataset = pydicom.dcmread(path)
    if tag == "Rows" and value == 60000:
        dataset.Columns = 60000
    if value is None:
        delattr(dataset, tag)
    else:
        setattr(dataset, tag, value)
    dataset.save_as(path)
    assert re.search(words, refused(path))


@pytest.mark.parametrize("tag", ["BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"])
def test_tags_that_can_be_supplied(tmp_path, tag):
    values = RAMP.astype(np.uint16) * 7
    path = dicom_file(tmp_path / "a", values)
    dataset = pydicom.dcmread(path)
    delattr(dataset, tag)
    dataset.save_as(path)
    np.testing.assert_array_equal(grey(path), own_range(values))


# --- Compression ---------------------------------------------------------------------------------


def test_videos_and_unknown_compression(tmp_path):
    path = dicom_file(tmp_path / "a", RAMP)
    for uid, name in (("1.2.840.10008.1.2.4.102", "MPEG-4"), ("1.2.3.4.5", "1.2.3.4.5")):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.PixelData = encapsulate([b"\0" * 48])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(tmp_path / "b", implicit_vr=False, little_endian=True)
        assert re.search(rf"compressed in a way that is not read: {name}", refused(tmp_path / "b"))


def test_a_decoder_that_is_not_installed(tmp_path, monkeypatch):
    path = dicom_file(tmp_path / "a", RAMP, RLELossless)
    monkeypatch.setattr(get_decoder(RLELossless), "_available", {})
    assert re.search(
        r"/a: is compressed as RLE Lossless .*no decoder for it is installed.*install HiCA again",
        refused(path),
    )


def test_compressed_without_saying_how(tmp_path):
    path = dicom_file(tmp_path / "a", RAMP, RLELossless, Modality="CT")
    data = path.read_bytes()
    path.write_bytes(data[132 + 12 + int.from_bytes(data[140:144], "little") :])
    assert "its transfer syntax (0002,0010) is missing" in refused(path)


def jpeg(path, pixels, rows, syntax=JPEGBaseline8Bit, cut=None, **tags):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=95)
    dataset = pydicom.dcmread(dicom_file(path, pixels, **tags))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([file.getvalue()[:cut]])
    dataset["PixelData"].is_undefined_length = True
    dataset.Rows = rows
    dataset.save_as(path)
    return path


def test_jpeg_colours(tmp_path):
    pixels = np.full((16, 24, 3), [200, 120, 40], np.uint8)
    path = jpeg(tmp_path / "a", pixels, 16, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(np.asarray(read_image(path)).astype(int) - pixels).max() <= 3


def test_a_frame_of_another_size_than_the_tags_say(tmp_path):
    path = jpeg(tmp_path / "a", np.zeros((16, 24), np.uint8), 17)
    assert re.search("frame is 24×16 px, but the tags Columns and Rows say 24×17", refused(path))


def test_a_frame_that_is_cut_short(tmp_path):
    """Some decoders would fill it with grey."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = jpeg(tmp_path / "a", noise, 64, cut=-600)
    assert re.search("the compressed frame has no end.*copy it again", refused(path))


def test_deflated_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(refusals, "MOST_BYTES", 100_000)
    syntax = DeflatedExplicitVRLittleEndian
    path = dicom_file(tmp_path / "a", np.zeros((400, 400), np.uint8), syntax)
    assert len(path.read_bytes()) < 2000
    assert "a: is too large: more than 100,000 bytes unpacked" in refused(path)


@pytest.mark.parametrize(("more", "said"), [(0, False), (64, True)])
def test_more_pixel_data_than_is_accounted_for(tmp_path, more, said):
    """Rows may be wrong: what is shown may then be a part."""
    path = dicom_file(tmp_path / "a", RAMP, PixelData=RAMP.tobytes() + b"\0" * more)
    np.testing.assert_array_equal(grey(path), own_range(RAMP))
    assert ("its pixel data go on after" in notes(path)) == said


def test_a_slope_of_zero(tmp_path):
    path = dicom_file(tmp_path / "a", RAMP, RescaleSlope=0)
    assert re.search(r"Rescale Slope \(0028,1053\) is 0, which makes", refused(path))


# --- What lies over a picture --------------------------------------------------------------------


def test_an_overlay_is_said(tmp_path):
    path = dicom_file(tmp_path / "a", RAMP)
    plain = grey(path)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000010, "US", 6)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60003000, "OW", b"\xff" * 6)
    dataset.save_as(path)
    np.testing.assert_array_equal(grey(path), plain)
    assert notes(path) == "its overlay is not drawn in"
