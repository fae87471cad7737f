"""NIfTI."""

import nibabel
import numpy as np
import pytest
from tests.unit.hica.images.made import grey, notes, own_range, way

from hica.errors import DataError
from hica.images.decode import read_image


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_middle_slice_anterior_up(tmp_path, suffix):
    volume = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)  # R, A, S
    path = tmp_path / f"a.{suffix}"
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    assert way(path) == "NIfTI, middle axial slice, scaled by the image's own range"
    expected = own_range(volume[:, :, 2])[::-1, ::-1].T  # right at the left, front up
    np.testing.assert_array_equal(grey(path), expected)


def test_nifti_orientation_is_read_from_the_file(tmp_path):
    volume = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ras.nii")
    nibabel.save(
        nibabel.Nifti1Image(volume[::-1, ::-1], np.diag([-1.0, -1, 1, 1])), tmp_path / "lps.nii"
    )
    np.testing.assert_array_equal(grey(tmp_path / "ras.nii"), grey(tmp_path / "lps.nii"))
