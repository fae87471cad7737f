"""NIfTI."""

import gzip
import re

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.unit.hica.images.made import grey, notes, own_range, refused, way

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


ORIENTATIONS = ["RAS", "LAS", "LPS", "PIR", "SRA", "AIL", "IPR"]


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("zooms", [(1, 1, 1), (1, 2, 3)])
def test_the_same_anatomy_gives_the_same_picture(tmp_path, codes, zooms):
    """An even number of slices: the middle must not move with the direction of the axis."""
    volume = np.random.default_rng(0).normal(size=(6, 8, 4))
    image = nibabel.Nifti1Image(volume, np.diag([*zooms, 1]))
    here = nibabel.orientations.io_orientation(image.affine)
    there = nibabel.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(here, there))
    nibabel.save(turned, tmp_path / "a.nii.gz")
    shown = read_image(tmp_path / "a.nii.gz")
    expected = Image.fromarray(own_range(volume[:, :, 2])[::-1, ::-1].T.astype(np.uint8))
    expected = expected.resize((6, 8 * zooms[1]), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(shown)[..., 0], expected)


@pytest.mark.parametrize(("shape", "plane"), [((1, 8, 6), "sagittal"), ((8, 1, 6), "coronal")])
def test_a_single_slice_is_shown_whichever_way_it_lies(tmp_path, shape, plane):
    """Head up; of a sagittal one the front at the left."""
    volume = np.random.default_rng(0).normal(size=shape)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(
        grey(tmp_path / "a.nii"), own_range(volume.squeeze()[::-1, ::-1].T)
    )
    assert way(tmp_path / "a.nii").startswith(f"NIfTI, middle {plane} slice")


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 4, 3), (6, 8, 4, 1, 3)])
def test_of_two_dimensions_and_of_a_series(tmp_path, shape):
    volume = np.random.default_rng(0).normal(size=shape)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    first = volume.reshape(6, 8, *shape[2:3] or (1,), -1)[..., 0]
    expected = first[:, :, first.shape[2] // 2][::-1, ::-1].T
    np.testing.assert_array_equal(grey(tmp_path / "a.nii"), own_range(expected))
    assert ("the first of 3 volumes" in notes(tmp_path / "a.nii")) == (3 in shape[3:])


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8", ">i2"])
@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_numbers_versions_and_scaling(tmp_path, dtype, version):
    volume = np.arange(48).reshape(6, 8, 1).astype(dtype)
    image = version(volume, np.eye(4), dtype=dtype)
    image.header.set_slope_inter(2.5, -40)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(
        grey(tmp_path / "a.nii"), own_range(volume[::-1, ::-1, 0].T.astype(float))
    )


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_colours_are_not_stretched(tmp_path, names):
    volume = np.zeros((6, 8, 1), [(name, "u1") for name in names])
    for step, name in enumerate("RGB"):
        volume[name][..., 0] = np.arange(48).reshape(6, 8) + step
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    expected = np.stack([volume[name][::-1, ::-1, 0].T for name in "RGB"], axis=-1)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.nii")), expected)
    assert way(tmp_path / "a.nii") == "NIfTI, middle axial slice, colour"


def test_a_volume_without_orientation_is_said(tmp_path):
    image = nibabel.Nifti1Image(np.arange(48.0).reshape(6, 8, 1), None)
    nibabel.save(image, tmp_path / "a.nii")
    assert "does not say which side is right" in notes(tmp_path / "a.nii")


def test_padding_that_fills_the_range_is_said(tmp_path):
    volume = np.random.default_rng(0).normal(0, 100, size=(30, 30, 1))
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "good.nii")
    volume[:4] = -8192
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "padded.nii")
    assert notes(tmp_path / "good.nii") == ""
    assert "most of the range is padding: -8192" in notes(tmp_path / "padded.nii")


@pytest.mark.parametrize("kept", [100, 400, 1000, -1])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_truncated(tmp_path, suffix, kept):
    """Also where only values beyond the middle slice are gone."""
    volume = np.random.default_rng(0).normal(size=(6, 8, 40))
    path = tmp_path / f"a.{suffix}"
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "cannot be decoded" in refused(path)
    assert "copy it again" in refused(path)


def test_a_flipped_byte_in_a_packed_file(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((60, 80, 40)), np.eye(4)), tmp_path / "a.nii.gz")
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    data[-6] ^= 1  # of the sum
    (tmp_path / "a.nii.gz").write_bytes(data)
    assert "copy it again" in refused(tmp_path / "a.nii.gz")


def header(path, **fields):
    image = nibabel.Nifti1Image(np.arange(48.0).reshape(6, 8, 1), np.eye(4))
    nibabel.save(image, path)
    data = bytearray(path.read_bytes())
    head = nibabel.Nifti1Header(bytes(data[:348]))
    for name, value in fields.items():
        head[name] = value
    data[:348] = head.binaryblock
    path.write_bytes(data)
    return path


def test_more_bytes_than_the_limit(tmp_path):
    path = header(tmp_path / "a.nii", dim=[3, 30000, 30000, 300, 1, 1, 1, 1])
    assert "a.nii: is too large: more than 2,147,483,648 bytes" in refused(path)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert "b.nii.gz: is too large: more than 2,147,483,648 bytes" in refused(packed)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"magic": b"ni1"}, r"a pair of files \.hdr and \.img.*; save both as one \.nii"),
        ({"intent_code": 3006}, "is a CIFTI matrix and holds no picture; name an image file"),
        ({"datatype": 32, "bitpix": 64}, "holds complex numbers; save their magnitude"),
        ({"dim": [3, 6, 0, 1, 1, 1, 1, 1]}, r"gives the shape \(6, 0, 1\).* copy it again"),
        ({"srow_x": [0, 0, 0, 0]}, "does not say how the volume lies in the body"),
        ({"srow_x": [np.nan] * 4}, "does not say how the volume lies in the body"),
    ],
)
def test_what_is_refused(tmp_path, fields, reason):
    assert re.search(rf"a\.nii: .*{reason}", refused(header(tmp_path / "a.nii", **fields)))


def test_analyze(tmp_path):
    nibabel.save(nibabel.Spm2AnalyzeImage(np.zeros((6, 8, 2)), np.eye(4)), tmp_path / "a.img")
    assert "save both as one .nii" in refused(tmp_path / "a.hdr")
    assert "a.img: " in refused(tmp_path / "a.img")


def test_other_files_packed_by_gzip(tmp_path):
    from tests.unit.hica.images.made import RAMP, dicom_file

    plain = dicom_file(tmp_path / "a.dcm", RAMP)
    (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    np.testing.assert_array_equal(grey(tmp_path / "a.dcm.gz"), grey(plain))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"a,b\n" * 900, mtime=0))
    assert "b.gz: is packed by gzip, and what is in it looks to be a text file" in refused(
        tmp_path / "b.gz"
    )
