"""DICOM."""

import numpy as np
import pytest
from tests.unit.hica.images.made import RAMP, dicom_file, grey, notes, own_range, way

from hica.errors import DataError
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
