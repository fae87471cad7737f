"""Damaged copies of image files: an error in words, or a picture; never a traceback."""

import resource
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.unit.hica.images.made import dicom_file
from tests.unit.hica.images.shipped import ROOTS

from hica.errors import DataError
from hica.images.decode import decode_mask, decode_picture

TEST_FILES = ROOTS["pydicom"] / "test_files"
SHIPPED = [
    "CT_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm",
    "image_dfl.dcm", "examples_palette.dcm", "JPGExtended.dcm", "SC_rgb_small_odd.dcm",
]  # fmt: skip
MEMORY = 2**30
"""Bytes that decoding a small file may take at most."""


def originals(folder):
    """Small files of every kind, by name."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "tif", "bmp", "gif", "webp", "jp2", "ppm"):
        Image.fromarray(noise).save(folder / f"a.{suffix}")
    tifffile.imwrite(folder / "deep.tif", noise.astype(np.uint16), compression="zlib")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 9).save(folder / "deep.png")
    volume = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(12, 10, 8)), np.eye(4))
    nibabel.save(volume, folder / "a.nii")
    nibabel.save(volume, folder / "a.nii.gz")
    dicom_file(folder / "window.dcm", noise[..., 0], WindowCenter=90, WindowWidth=90)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return files | {name: (TEST_FILES / name).read_bytes() for name in SHIPPED}


def damaged(data, kind, draws):
    """A copy that is cut short, has flipped bytes, or a region of zeros."""
    if kind == "truncated":
        return data[: draws.integers(1, len(data))]
    copy = bytearray(data)
    if kind == "flipped":
        # Headers are small: half of the damage goes there.
        ends = [min(len(copy), 600), len(copy)]
        for end in ends * 2:
            copy[draws.integers(end)] ^= 1 << draws.integers(8)
    else:
        start = draws.integers(len(copy))
        length = min(len(copy) - start, int(draws.integers(1, 300)))
        copy[start : start + length] = bytes(length)
    return bytes(copy)


KINDS = ("truncated", "flipped", "zeroed")
CHECKED = ("png", "gz")
"""Suffixes of formats with sums over their content: what is changed in it is found out."""


def outcome(data, name):
    """`picture` or `refused`; anything else fails."""
    try:
        picture = decode_picture(data, Path(name))
    except DataError as error:
        assert str(error).startswith(f"{name}: ")
        assert "out of the manifest" in str(error)
        assert "\n" not in str(error)
        found = "refused"
    else:
        assert picture.image.mode == "RGB"
        found = "picture"
    try:
        decode_mask(data, Path(name), (40, 32))
    except DataError as error:
        assert str(error).startswith(f"{name}: ")
    return found


@pytest.mark.parametrize(
    "share", [5, pytest.param(60, marks=pytest.mark.matrix)], ids=["few", "many"]
)
def test_damaged_copies(tmp_path, share):
    files = originals(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {}
    for name, data in files.items():
        assert outcome(data, name) == "picture", name
        for at in range(share):
            for kind in KINDS:
                draws = np.random.default_rng([zlib.crc32(name.encode()), at, KINDS.index(kind)])
                copy = damaged(data, kind, draws)
                found = outcome(copy, name)
                counts.setdefault(kind, []).append(found)
                if copy != data and name.endswith(CHECKED) and found == "picture":
                    intact = decode_picture(data, Path(name)).image
                    same = np.asarray(intact) == np.asarray(decode_picture(copy, Path(name)).image)
                    assert same.all(), (name, kind, at)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY
    assert sum(map(len, counts.values())) == len(files) * share * len(KINDS) >= 300
    assert counts["truncated"].count("refused") > 0.8 * len(counts["truncated"])


def test_no_truncated_copy_is_shown_other_than_whole(tmp_path):
    """Every tenth of every file: what is still shown has all pixels of the whole one."""
    for name, data in originals(tmp_path).items():
        intact = np.asarray(decode_picture(data, Path(name)).image)
        for tenth in range(1, 10):
            try:
                picture = decode_picture(data[: len(data) * tenth // 10], Path(name))
            except DataError:
                continue
            assert np.array_equal(np.asarray(picture.image), intact), (name, tenth)
