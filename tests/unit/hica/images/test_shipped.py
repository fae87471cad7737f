"""All image files of pydicom, pydicom-data and nibabel against a slow reference of its own."""

import numpy as np
import pytest
from tests.unit.hica.images.shipped import files, frame_shown, volume_shown

from hica.errors import DataError
from hica.images import dicom, nifti
from hica.images.decode import read_bytes, read_picture, stored_size
from hica.images.packed import is_packed, unpacked

FILES = files()


def shown(path):
    """The pixels of the file before they are made square, `[H, W, 3]`."""
    data = read_bytes(path)
    data = unpacked(data) if is_packed(data) else data
    pixels = (dicom if dicom.is_dicom(data) else nifti).picture(data).pixels
    return np.broadcast_to(
        pixels[..., None] if pixels.ndim == 2 else pixels, (*pixels.shape[:2], 3)
    )


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_read_shows_what_the_standard_has(name):
    path = FILES[name]
    try:
        picture = read_picture(path)
    except DataError:
        return  # the table of these is in docs/images.md, which test_images_page.py holds
    found = shown(path)
    assert found.shape[1::-1] == stored_size(picture.image)
    if picture.image.size == stored_size(picture.image):
        np.testing.assert_array_equal(np.asarray(picture.image), found)
    if "NIfTI" in picture.way:
        expected = volume_shown(path)[..., None]
    else:
        expected = frame_shown(path)
    assert np.abs(found - expected).max() <= 1
