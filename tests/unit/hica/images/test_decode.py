import io

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageFile

from hica.errors import DataError
from hica.images.decode import _windowed, decode_mask, read_image, read_mask, read_picture

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def pillow_file(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def dicom_file(path, values, **tags):
    """A DICOM file of the given stored values, as small as may be."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    colour = values.ndim == 3 and values.shape[-1] == 3
    if values.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(values)
    dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def grey(path):
    image = read_image(path)
    assert image.mode == "RGB"
    red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
    assert (red == green).all()
    assert (red == blue).all()
    return red


def own_range(values):
    values = values.astype(float)
    return np.round((values - values.min()) / (values.max() - values.min()) * 255)


def way(path):
    return read_picture(path).way


# Pillow's formats


def test_8_bit_grey_is_left_as_it_is(tmp_path):
    np.testing.assert_array_equal(grey(pillow_file(tmp_path / "a.png", RAMP)), RAMP)


def test_colour_and_alpha(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    np.testing.assert_array_equal(
        np.asarray(read_image(pillow_file(tmp_path / "a.png", colours))), colours[..., :3]
    )


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


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x1f\x8b broken gzip"])
def test_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        read_image(tmp_path / "a.png")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file.*restore"):
        read_image(tmp_path / "gone.png")


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


# DICOM


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
        _windowed(values, dataset) * 255, apply_windowing(values, dataset), atol=1e-9
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


# NIfTI


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_middle_slice_anterior_up(tmp_path, suffix):
    volume = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)  # R, A, S
    path = tmp_path / f"a.{suffix}"
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    assert way(path) == "NIfTI, middle slice, scaled by the image's own range"
    expected = own_range(volume[:, :, 2])[:, ::-1].T
    np.testing.assert_array_equal(grey(path), expected)


def test_nifti_orientation_is_read_from_the_file(tmp_path):
    volume = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ras.nii")
    nibabel.save(
        nibabel.Nifti1Image(volume[::-1, ::-1], np.diag([-1.0, -1, 1, 1])), tmp_path / "lps.nii"
    )
    np.testing.assert_array_equal(grey(tmp_path / "ras.nii"), grey(tmp_path / "lps.nii"))


# Masks


def test_mask_is_true_where_not_zero(tmp_path):
    inside = RAMP > 100
    expected = {
        "1.png": inside,
        "8.png": inside.astype(np.uint8),
        "16.png": inside.astype(np.uint16) * 300,
        "rgb.png": np.repeat(inside[..., None] * np.uint8(255), 3, axis=-1),
    }
    for name, array in expected.items():
        mask = read_mask(pillow_file(tmp_path / name, array), (8, 6))
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, inside, err_msg=name)


def test_alpha_is_no_part_of_a_mask(tmp_path):
    array = np.zeros((6, 8, 4), np.uint8)
    array[..., 3] = 255
    assert not read_mask(pillow_file(tmp_path / "a.png", array), (8, 6)).any()


def test_volume_mask_is_cut_as_its_volume(tmp_path):
    volume = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "image.nii")
    nibabel.save(
        nibabel.Nifti1Image((volume > 1).astype(np.uint8), np.eye(4)), tmp_path / "mask.nii"
    )
    image = read_image(tmp_path / "image.nii")
    mask = read_mask(tmp_path / "mask.nii", image.size)
    assert mask.any()
    assert np.asarray(image)[mask].min() > np.asarray(image)[~mask].max()


def test_mask_of_another_size_names_both(tmp_path):
    path = pillow_file(tmp_path / "mask.png", RAMP)
    with pytest.raises(DataError, match=r"mask\.png: the mask is 8×6 px but its image is 6×8 px"):
        read_mask(path, (6, 8))


def test_decode_mask_of_bytes(tmp_path):
    data = io.BytesIO()
    Image.fromarray(RAMP).save(data, "png")
    np.testing.assert_array_equal(decode_mask(data.getvalue(), tmp_path, (8, 6)), RAMP > 0)
