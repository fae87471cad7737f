"""What all formats share: files that cannot be read, are none, or are too large."""

import io
import os
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from tests.unit.hica.images.made import RAMP, dicom_file, grey, pillow_file, refused

from hica.errors import DataError
from hica.images import decode
from hica.images.decode import read_image, stored_size


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file.*restore"):
        read_image(tmp_path / "gone.png")


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with (tmp_path / "a.nii").open("wb") as file:
        os.truncate(file.fileno(), 2**31 + 1)  # takes no room on the disk
    assert "a.nii: is too large: more than 2,147,483,648 bytes" in refused(tmp_path / "a.nii")


def test_memory_that_does_not_suffice_is_no_damage(tmp_path, monkeypatch):
    def full(data):
        raise MemoryError

    monkeypatch.setattr(decode.raster, "picture", full)
    said = refused(pillow_file(tmp_path / "a.png", RAMP))
    assert "a.png: is too large: there is not enough memory" in said


def test_by_content_whatever_the_name(tmp_path):
    pillow_file(tmp_path / "a.png", RAMP).rename(tmp_path / "a.dcm")
    np.testing.assert_array_equal(grey(tmp_path / "a.dcm"), RAMP)


def test_dicom_with_the_header_of_a_tiff_before_it(tmp_path):
    """Both programs that know one format only can open such a file."""
    data = bytearray(dicom_file(tmp_path / "a", RAMP, WindowCenter=50, WindowWidth=20).read_bytes())
    expected = grey(tmp_path / "a")
    data[:4] = b"II*\0"
    (tmp_path / "a").write_bytes(data)
    np.testing.assert_array_equal(grey(tmp_path / "a"), expected)


def test_size_in_the_file(tmp_path):
    dicom_file(tmp_path / "a", RAMP, PixelSpacing=[2, 1])
    image = read_image(tmp_path / "a")
    assert (image.size, stored_size(image)) == ((8, 12), (8, 6))
    assert stored_size(Image.new("RGB", (3, 4))) == (3, 4)


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"x")
    return file.getvalue()


OTHERS = {
    "nothing": (b"", "it is empty; copy it from its source"),
    "zeros": (b"\0" * 900, "it is 900 bytes of zero.*copy it again"),
    "text": (b"not an image", "looks to be a text file; name an image file"),
    "pdf": (b"%PDF-1.7\n...", "looks to be a PDF document; export its pictures"),
    "zip": (zipped(), "looks to be a zip archive .*; unpack it"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "looks to be a HEIC picture; convert it to PNG"),
    "svg": (b"<?xml version='1.0'?>\n<svg width='3'/>", "looks to be an SVG drawing; convert it"),
    "html": (b"<!DOCTYPE html><html>login", "looks to be a web page.*; download the image again"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0", r"looks to be a video \(MP4 .*; export its pictures"),
    "avi": (b"RIFF\x24\0\0\0AVI LIST", r"looks to be a video \(AVI\)"),
    "raw": (b"IIRO\x08\0\0\0", "looks to be a raw camera picture"),
    "jxl": (b"\xff\x0a\x10", "looks to be a JPEG XL picture; convert it"),
    "psd": (b"8BPS\0\x01", "looks to be a Photoshop picture; convert it"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0", "looks to be a PostScript document"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "looks to be an HDF5 .*; convert it to NIfTI"),
    "nrrd": (b"NRRD0004\n", "looks to be an NRRD volume; convert it to NIfTI"),
    "numpy": (b"\x93NUMPY\x01\0", "looks to be a NumPy array"),
    "openssl": (b"Salted__\x01\x02", r"looks to be an encrypted file \(OpenSSL\); decrypt it"),
    "cms": (
        b"\x30\x82\x10\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03",
        r"looks to be an encrypted or signed envelope \(CMS\).*; decrypt it",
    ),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch"),
    "noise": (b"\x81\x03\x99\xfe\0\x7f" * 9, "no format that is read here; convert it to PNG"),
    "gzip": (b"\x1f\x8b broken", "cannot be decoded .*copy it again"),
    "bmp": (b"BMW is a word, not a picture", "looks to be a text file"),
    "ppm": (b"P1,benign,train", "looks to be a text file"),
}


DAMAGE = {"zeros", "gzip"}
"""Only this is mended by another copy."""


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_looks_to_be_and_how_to_mend_it(tmp_path, name):
    content, words = OTHERS[name]
    (tmp_path / "a").write_bytes(content)
    said = refused(tmp_path / "a")
    assert re.search(rf"/a: .*{words}.* take its row out of the manifest", said)
    assert ("copy it again" in said) == (name in DAMAGE)
