"""Files by their first bytes."""

import gzip
import io

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.unit.hica_client.intake.exports import blob, write_dicom

from hica_client.intake.dicom import read_header
from hica_client.intake.kinds import kind_of


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000"])
def test_pictures(tmp_path, form):
    Image.fromarray(blob(1)).save(tmp_path / "x", form)
    assert kind_of(tmp_path / "x") == "picture"


def test_dicom_with_and_without_preamble(tmp_path):
    path = write_dicom(tmp_path / "x", blob(1), PatientID="1")
    assert kind_of(path) == "dicom"
    path.write_bytes(path.read_bytes()[132:])
    assert kind_of(path) == "dicom" and read_header(path).patient == "1"


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti(tmp_path, kind):
    volume = kind(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    (tmp_path / "plain").write_bytes(volume.to_bytes())
    (tmp_path / "packed").write_bytes(gzip.compress(volume.to_bytes(), mtime=0))
    assert kind_of(tmp_path / "plain") == kind_of(tmp_path / "packed") == "picture"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PK\x03\x04", "archive"),
        (gzip.compress(b"a tar", mtime=0), "archive"),
        (b"\x1f\x8bgarbage", "archive"),
        (b"Rar!\x1a\x07", "archive"),
        (b"x" * 257 + b"ustar", "archive"),
        (b"%PDF-1.4", "other"),
        (b"\x08\x00", "other"),
        (b"", "other"),
        (b"image,label\n", "other"),
    ],
)
def test_others(tmp_path, data, kind):
    (tmp_path / "x").write_bytes(data)
    assert kind_of(tmp_path / "x") == kind


@given(
    st.binary(max_size=600), st.sampled_from([b"", b"\0" * 128 + b"DICM", b"\x08\x00\x05\x00CS"])
)
def test_whatever_the_bytes_a_header_is_read_or_says_why_not(tmp_path_factory, data, beginning):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(beginning + data)
    assert kind_of(path) in ("dicom", "picture", "archive", "other")
    assert isinstance(read_header(path).reason, str)


def test_whatever_is_cut_or_changed_a_header_is_read_or_says_why_not(tmp_path):
    whole = write_dicom(tmp_path / "x", blob(1), PatientID="1", ImageType=["A", "B"]).read_bytes()
    draws = np.random.default_rng(0)
    for _ in range(100):
        data = np.frombuffer(io.BytesIO(whole).read(int(draws.integers(1, len(whole)))), np.uint8)
        data = data.copy()
        data[draws.integers(0, len(data), 3)] = draws.integers(0, 256, 3)
        (tmp_path / "y").write_bytes(data.tobytes())
        assert isinstance(read_header(tmp_path / "y").reason, str)
