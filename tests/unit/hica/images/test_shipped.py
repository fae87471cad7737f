"""All image files of pydicom, pydicom-data and nibabel against a slow reference of its own."""

import numpy as np
import pytest
from tests.unit.hica.images.shipped import files, frame_shown, volume_shown

from hica.errors import DataError
from hica.images import dicom, nifti
from hica.images.decode import read_bytes, read_picture, stored_size
from hica.images.packed import is_packed, unpacked

FILES = files()
LARGE = 150_000
"""Bytes; what has more takes seconds."""


def before_stretching(path):
    """The pixels of a file that are not square, `[H, W, 3]`."""
    data = read_bytes(path)
    data = unpacked(data) if is_packed(data) else data
    pixels = (dicom if dicom.is_dicom(data) else nifti).picture(data).pixels
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.matrix] if path.stat().st_size > LARGE else [])
        for name, path in FILES.items()
    ],
)
def test_a_file_that_is_read_shows_what_the_standard_has(name):
    path = FILES[name]
    try:
        picture = read_picture(path)
    except DataError:
        return  # the table of these is in docs/images.md, which test_images_page.py holds
    found = np.asarray(picture.image)
    if picture.image.size != stored_size(picture.image):
        found = before_stretching(path)
        assert found.shape[1::-1] == stored_size(picture.image)
    is_volume = "NIfTI" in picture.way
    expected = volume_shown(path)[..., None] if is_volume else frame_shown(path)
    assert np.abs(found - expected).max() <= 1
