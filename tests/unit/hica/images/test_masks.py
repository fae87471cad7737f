"""Masks, in every format."""

import io

import nibabel
import numpy as np
import pytest
from PIL import Image
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
    with pytest.raises(DataError, match=r"mask\.png: the mask is 8×6 px but its image is 6×8 px"):
        read_mask(path, (6, 8))


def test_decode_mask_of_bytes(tmp_path):
    data = io.BytesIO()
    Image.fromarray(RAMP).save(data, "png")
    np.testing.assert_array_equal(decode_mask(data.getvalue(), tmp_path, (8, 6)), RAMP > 0)
