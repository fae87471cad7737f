"""Masks, in every format."""

import io

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset
from tests.unit.hica.images.made import RAMP, dicom_file, pillow_file

from hica.errors import DataError
from hica.images.decode import decode_mask, read_image, read_mask, stored_size


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
    with pytest.raises(DataError, match=r"mask\.png: the mask is 8×6 px but its image is 9×8 px"):
        read_mask(path, (9, 8))
    with pytest.raises(DataError, match=r"8×6 px .* 6×8 px; .* size and turned as the image is"):
        read_mask(path, (6, 8))


def test_decode_mask_of_bytes(tmp_path):
    data = io.BytesIO()
    Image.fromarray(RAMP).save(data, "png")
    np.testing.assert_array_equal(decode_mask(data.getvalue(), tmp_path, (8, 6)), RAMP > 0)


# --- What marks ----------------------------------------------------------------------------------

INSIDE = np.zeros((48, 64), bool)
INSIDE[10:30, 12:40] = True


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("value", [1, 2, 127, 255])
def test_any_number_marks_where_numbers_are_kept(tmp_path, value):
    levels = INSIDE * np.uint8(value)
    for name, options in (("a.png", {}), ("a.tif", {}), ("a.bmp", {}), ("a.webp", {"lossless": 1})):
        mask = read_mask(saved(tmp_path / name, levels, **options), (64, 48))
        np.testing.assert_array_equal(mask, INSIDE, err_msg=name)


@pytest.mark.parametrize("suffix", ["jpg", "jp2", "webp", "tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_half_of_white_marks_where_they_are_not(tmp_path, suffix, colour):
    levels = INSIDE * np.uint8(255)
    if colour:
        levels = np.stack([levels, levels * 0, levels * 0], axis=-1)
    options = {
        "jpg": {"quality": 60, "subsampling": 0},
        "tif": {"compression": "jpeg"},
        "webp": {"quality": 60},
        "jp2": {"irreversible": True, "quality_layers": [4]},
    }
    mask = read_mask(saved(tmp_path / f"a.{suffix}", levels, **options[suffix]), (64, 48))
    assert (mask ^ INSIDE).mean() < (0.02 if colour else 0.002)


def test_labels_in_jpeg_are_refused(tmp_path):
    path = saved(tmp_path / "a.jpg", INSIDE * np.uint8(2))
    with pytest.raises(DataError, match=r"a\.jpg: the mask is nowhere .*; save it as PNG"):
        read_mask(path, (64, 48))


def test_an_empty_mask_in_jpeg(tmp_path):
    assert not read_mask(saved(tmp_path / "a.jpg", np.zeros((48, 64), np.uint8)), (64, 48)).any()


def test_probabilities_are_cut_at_half(tmp_path):
    levels = np.where(INSIDE, 0.7, 0.2).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", levels)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif", (64, 48)), INSIDE)
    tifffile.imwrite(tmp_path / "b.tif", np.where(INSIDE, 3.0, np.nan).astype(np.float32))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif", (64, 48)), INSIDE)


def test_colours_mark_however_dark(tmp_path):
    levels = np.zeros((48, 64, 3), np.uint8)
    levels[INSIDE] = [0, 0, 1]
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "a.png", levels), (64, 48)), INSIDE)


@pytest.mark.parametrize("white_first", [False, True])
def test_an_index_marks_by_its_colour(tmp_path, white_first):
    """Photoshop may put white first; of a palette that is all black, numbers count."""
    image = Image.fromarray((white_first != INSIDE).astype(np.uint8), "P")
    image.putpalette([255] * 3 + [0] * 3 if white_first else [0] * 3 + [255] * 3)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", (64, 48)), INSIDE)
    image = Image.fromarray(INSIDE.astype(np.uint8), "P")
    image.putpalette([0] * 6)
    image.save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", (64, 48)), INSIDE)


def test_a_mask_drawn_in_opacity(tmp_path):
    levels = np.full((48, 64, 4), 255, np.uint8)
    levels[..., 3] = INSIDE * np.uint8(255)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "a.png", levels), (64, 48)), INSIDE)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_a_mask_whose_white_is_zero(tmp_path, dtype):
    levels = (~INSIDE).astype(dtype) * dtype(1 if dtype is bool else np.iinfo(dtype).max)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif", (64, 48)), INSIDE)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("value", [1, 255])
def test_dicom_marks_by_stored_values(tmp_path, photometric, value):
    """All of it, too: stretched to its own range, such a mask would be black."""
    for inside in (INSIDE, INSIDE | True):
        levels = inside * np.uint8(value)
        levels = 255 - levels if photometric == "MONOCHROME1" else levels
        path = dicom_file(
            tmp_path / "a", levels, PhotometricInterpretation=photometric, RescaleIntercept=-1024,
            WindowCenter=40, WindowWidth=400,
        )  # fmt: skip
        np.testing.assert_array_equal(read_mask(path, (64, 48)), inside)


def test_nifti_marks_by_its_numbers(tmp_path):
    volume = np.ones((6, 8, 3), np.uint8)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    assert read_mask(tmp_path / "a.nii", (6, 8)).all()


# --- Segmentations -------------------------------------------------------------------------------


def segmentation(path, frames, places, **tags):
    groups = []
    for place in places:
        plane, group = Dataset(), Dataset()
        plane.ImagePositionPatient = [0, 0, place]
        group.PlanePositionSequence = [plane]
        groups.append(group)
    return dicom_file(
        path, frames, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4",
        PerFrameFunctionalGroupsSequence=groups, **tags,
    )  # fmt: skip


def test_segments_of_one_slice_are_one_mask(tmp_path):
    frames = np.stack([INSIDE, INSIDE[::-1]]).astype(np.uint8)
    binary = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    packed = np.packbits(frames, bitorder="little").tobytes()
    path = segmentation(tmp_path / "a", frames, [5, 5], PixelData=packed, **binary)
    np.testing.assert_array_equal(read_mask(path, (64, 48)), frames.any(axis=0))


def test_segments_of_several_slices_are_refused(tmp_path):
    frames = np.stack([INSIDE, INSIDE[::-1]]).astype(np.uint8)
    path = segmentation(tmp_path / "a", frames, [5, 6])
    with pytest.raises(DataError, match=r"a segmentation of several slices \(2 frames\).*; export"):
        read_mask(path, (64, 48))


def test_a_segmentation_of_probabilities_is_cut_at_half(tmp_path):
    path = segmentation(
        tmp_path / "a", np.where(INSIDE, 70, 20).astype(np.uint8)[None], [5],
        SegmentationFractionalType="PROBABILITY", MaximumFractionalValue=100,
    )  # fmt: skip
    np.testing.assert_array_equal(read_mask(path, (64, 48)), INSIDE)


# --- Where a mask lies ---------------------------------------------------------------------------


def test_a_mask_is_turned_as_its_own_tag_asks(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", np.rot90(INSIDE).astype(np.uint8) * 255, exif=exif)
    np.testing.assert_array_equal(read_mask(path, (64, 48)), INSIDE)


@pytest.mark.parametrize("of_file", [True, False])
def test_a_mask_of_stored_pixels_or_of_square_ones(tmp_path, of_file):
    """Of an image with pixels that are not square, both are drawn."""
    image = read_image(
        dicom_file(tmp_path / "image", INSIDE.astype(np.uint8) * 200, PixelSpacing=[3, 1])
    )
    expected = np.repeat(INSIDE, 3, axis=0)
    drawn = INSIDE if of_file else expected
    path = saved(tmp_path / "mask.png", drawn.astype(np.uint8))
    mask = read_mask(path, image.size, stored_size(image))
    np.testing.assert_array_equal(mask, expected)
    assert np.asarray(image)[mask].min() > np.asarray(image)[~mask].max()
    if of_file:
        with pytest.raises(DataError, match="the mask is 64×48 px but its image is 64×144 px"):
            read_mask(path, image.size)


def test_a_mask_with_the_spacing_of_its_image(tmp_path):
    affine = np.diag([1, 2.5, 1, 1])
    volume = np.random.default_rng(0).normal(size=(6, 8, 5))
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "image.nii")
    nibabel.save(nibabel.Nifti1Image((volume > 1).astype(np.uint8), affine), tmp_path / "mask.nii")
    image = read_image(tmp_path / "image.nii")
    assert image.size == (6, 20)
    with_size = read_mask(tmp_path / "mask.nii", image.size)
    np.testing.assert_array_equal(
        with_size, read_mask(tmp_path / "mask.nii", image.size, stored_size(image))
    )
    assert with_size.any()
