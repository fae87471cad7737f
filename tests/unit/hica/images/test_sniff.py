import gzip
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

from hica.images.sniff import ENOUGH, holds_picture, kind_of, kind_of_bytes

CASES = Path(__file__).parents[5] / "shared" / "cases"


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, kind)
    return file.getvalue()


def dicom(pixels: bool = True) -> Dataset:
    data = Dataset()
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.SOPInstanceUID = "1.2.3"
    data.PatientID = "p"
    if pixels:
        data.Rows, data.Columns, data.BitsAllocated = 2, 2, 8
        data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 7, 0
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.PixelData = bytes(4)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return data


def written(data: Dataset, path: Path, bare: bool = False, implicit: bool = False) -> Path:
    if bare:
        path.write_bytes(encoded(data, implicit))
    else:
        data.save_as(path, enforce_file_format=True)
    return path


def encoded(data: Dataset, implicit: bool) -> bytes:
    file = io.BytesIO()
    del data.file_meta
    data.save_as(file, implicit_vr=implicit, little_endian=True)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WebP"])
def test_pictures_are_known_by_their_content(kind):
    assert kind_of_bytes(picture(kind)[:ENOUGH]) == kind


def test_dicom_is_known_with_and_without_preamble(tmp_path):
    assert kind_of(written(dicom(), tmp_path / "IM000001")) == "DICOM"
    for implicit in (True, False):
        assert kind_of(written(dicom(), tmp_path / "bare", True, implicit)) == "DICOM"
    tiff_too = b"II*\0" + bytes(124) + b"DICM"  # as whole-slide scanners write it
    assert kind_of_bytes(tiff_too) == "DICOM"


def test_nifti_is_known_packed_and_not():
    import nibabel

    for make in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        data = make(np.zeros((2, 2, 2), np.float32), np.eye(4)).to_bytes()
        assert kind_of_bytes(data[:ENOUGH]) == "NIfTI"
        assert kind_of_bytes(gzip.compress(data)[:ENOUGH]) == "NIfTI"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\0",
        b"notes",
        bytes(600),
        b"\xd0\xcf\x11\xe0" + bytes(600),
        b"\0\x05\x16\x07" + bytes(600),
        gzip.compress(b"a table"),
        b"\x1f\x8b broken",
        b"image,label\n" * 99,
    ],
)
def test_other_files_are_no_images(data):
    assert kind_of_bytes(data[:ENOUGH]) is None


def test_a_dicom_file_without_pixels_is_told_apart(tmp_path):
    assert holds_picture(written(dicom(), tmp_path / "a"))
    assert not holds_picture(written(dicom(pixels=False), tmp_path / "b"))
    (tmp_path / "c").write_bytes(bytes(128) + b"DICM" + b"\xff" * 99)
    assert isinstance(holds_picture(tmp_path / "c"), bool)


@pytest.mark.real_data
@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is absent")
def test_every_case_is_known_by_its_content():
    kinds = {
        folder: {kind_of(file) for file in (CASES / folder).iterdir() if file.suffix != ".npz"}
        for folder in ("dicom", "nifti", "csv")
    }
    assert kinds == {"dicom": {"DICOM"}, "nifti": {"NIfTI"}, "csv": {None}}
