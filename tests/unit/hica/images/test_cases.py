"""The files of ../shared/cases, each of which some reader somewhere gets wrong."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from hica.images.decode import read_image, read_mask, read_picture, stored_size

CASES = Path(__file__).parents[5] / "shared" / "cases"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is absent"),
]

EXPECTED = CASES / "dicom" / "expected.npz"
NAMES = np.load(EXPECTED).files if EXPECTED.is_file() else ["absent"]


def shown(name):
    return np.asarray(read_image(CASES / name)).astype(int)


def notes(name):
    return " ".join(read_picture(CASES / name).notes)


def within_one(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if "S14" not in name])
def test_dicom(name):
    within_one(shown(name), np.load(EXPECTED)[name])


@pytest.mark.parametrize("name", ["S02_rescale_empty", "S03_voilut_empty_window"])
def test_empty_tags_count_as_absent(name):
    within_one(shown(f"dicom/{name}.dcm"), shown("dicom/axial.dcm"))


def test_negative_width():
    within_one(shown("dicom/M09_negative_width.dcm")[..., 0], stretched(stored("dicom/axial.dcm")))
    assert "width of -2000" in notes("dicom/M09_negative_width.dcm")


def test_width_without_centre_is_said():
    assert "no centre" in notes("dicom/S04a_width_no_centre.dcm")


def test_decimal_comma():
    values = stored("dicom/S33_decimal_comma.dcm").astype(float)
    window = np.clip((values - 15) / 19.5 + 0.5, 0, 1) * 255
    within_one(shown("dicom/S33_decimal_comma.dcm")[..., 0], np.round(window))
    assert "comma" in notes("dicom/S33_decimal_comma.dcm")


def test_frames_are_said():
    assert "frame 2 of 2" in notes("dicom/S34_two_frames.dcm")
    assert "frame 2 of 3" in notes("dicom/S22_enhanced_perframe_window.dcm")


@pytest.mark.parametrize(
    ("name", "size", "step"),
    [
        ("dicom/S14_nonsquare_spacing.dcm", (64, 192), (4, 1)),
        ("nifti/N13_anisotropic.nii.gz", (40, 200), (4, 1)),
    ],
)
def test_square_pixels(name, size, step):
    picture = read_picture(CASES / name)
    assert picture.image.size == size
    assert stored_size(picture.image) == (size[0] // step[1], size[1] // step[0])
    assert "not square" in " ".join(picture.notes)
    if name.startswith("dicom"):  # the middle of four rows lies between two that are in the file
        expected = np.load(EXPECTED)[name].astype(int)
        rows = shown(name).reshape(48, 4, 64, 3)[:, 1:3].mean(axis=1)
        assert np.abs(rows - expected).mean() < 4


def test_the_same_slice_as_dicom_and_nifti():
    """Laid alike: NIfTI has no window, so that grey levels differ."""
    dicom, nifti = shown("dicom/axial.dcm")[..., 0], shown("nifti/axial.nii.gz")[..., 0]
    assert np.corrcoef(dicom.ravel(), nifti.ravel())[0, 1] > 0.95
    within_one(nifti, stretched(stored("dicom/axial.dcm")))


def test_the_same_volume_in_two_orientations():
    np.testing.assert_array_equal(shown("nifti/N00_ras.nii.gz"), shown("nifti/N01a_las.nii.gz"))


def test_nifti_2():
    np.testing.assert_array_equal(shown("nifti/N00_ras.nii.gz"), shown("nifti/N06_nifti2.nii.gz"))


def test_nan():
    volume = nibabel.load(CASES / "nifti" / "N04_nan_background.nii.gz").get_fdata()[:, :, 4]
    middle = volume[::-1, ::-1].T
    inside = np.isfinite(middle)
    found = shown("nifti/N04_nan_background.nii.gz")[..., 0]
    assert 0 < inside.mean() < 1
    assert found[~inside].max() == 0
    within_one(found[inside], stretched(middle[inside]))


def test_rgb24():
    volume = np.asarray(nibabel.load(CASES / "nifti" / "N07_rgb24.nii.gz").dataobj)[:, :, 4]
    colours = np.stack([volume[name] for name in "RGB"], axis=-1)
    np.testing.assert_array_equal(
        shown("nifti/N07_rgb24.nii.gz"), colours[::-1, ::-1].swapaxes(0, 1)
    )


def test_padding_that_is_not_declared_is_said():
    assert "most of the range is padding" in notes("nifti/N09_ct_padding.nii.gz")
    assert "padding" not in notes("nifti/N00_ras.nii.gz")


def test_exif_turns_an_image_as_its_mask_lies():
    image = read_image(CASES / "images" / "I01b_exif3.jpg")
    mask = read_mask(CASES / "images" / "I01b_mask_upright.png", image.size)
    assert abs(np.asarray(image.convert("L"))[mask].mean() - 250) < 1.5


def test_white_is_zero():
    white = shown("images/I02d_16bit_whiteiszero.tif")
    within_one(shown("images/I02_16bit.png"), 255 - white)


def test_16_bit_colour():
    assert shown("images/I13_rgb16.png").max() == 255


def test_a_mask_with_the_ringing_of_jpeg():
    image = read_image(CASES / "images" / "I06_image.png")
    assert read_mask(CASES / "images" / "I06_mask.jpg", image.size).sum() == 300


def test_pages():
    with Image.open(CASES / "images" / "I08_multipage.tif") as file:
        first = np.asarray(file)
    within_one(shown("images/I08_multipage.tif")[..., 0], first)
    assert "the first of 3" in notes("images/I08_multipage.tif")


def stored(name):
    from pydicom import dcmread

    return dcmread(CASES / name).pixel_array


def stretched(values):
    values = values.astype(float)
    return np.round((values - values.min()) / (values.max() - values.min()) * 255)
