import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.hica.images.made import dicom_file

from hica.errors import DataError
from hica.images import pixels as module
from hica.images.cache import TensorCache
from hica.images.manifest import Record
from hica.images.pixels import pixels_of
from hica.images.preprocess import Preprocess

PREPROCESS = Preprocess(16, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def record(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    Image.fromarray(noise[..., 0] > 100).save(tmp_path / "mask.png")
    return Record(tmp_path / "image.png", mask=tmp_path / "mask.png")


@pytest.fixture
def cache(tmp_path):
    return TensorCache(tmp_path / "cache")


def forbid_decoding(monkeypatch):
    def decode(*args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "decode_image", decode)


def test_cached_pixels_are_the_computed_ones(record, cache, monkeypatch):
    plain = pixels_of(record, PREPROCESS)
    first = pixels_of(record, PREPROCESS, cache)
    forbid_decoding(monkeypatch)
    again = pixels_of(record, PREPROCESS, cache)
    for other in (first, again):
        assert torch.equal(plain.pixels, other.pixels)
        assert torch.equal(plain.mask, other.mask)
        assert plain.sha256 == other.sha256
    assert plain.pixels.shape == (3, 16, 16)
    assert plain.mask.shape == (16, 16)
    assert plain.sha256 == hashlib.sha256(record.image.read_bytes()).hexdigest()


def test_a_copy_elsewhere_is_met_again(record, cache, monkeypatch, tmp_path):
    pixels_of(Record(record.image), PREPROCESS, cache)
    copy = tmp_path / "copy.png"
    copy.write_bytes(record.image.read_bytes())
    forbid_decoding(monkeypatch)
    assert pixels_of(Record(copy), PREPROCESS, cache).mask is None


@pytest.mark.parametrize("change", ["image", "mask", "no mask", "preprocess"])
def test_what_changes_is_computed_anew(record, cache, change, tmp_path):
    before = pixels_of(record, PREPROCESS, cache)
    preprocess = PREPROCESS
    if change == "image":
        Image.new("RGB", (30, 20), "red").save(record.image)
    elif change == "mask":
        Image.new("1", (30, 20)).save(record.mask)
    elif change == "no mask":
        record = Record(record.image)
    else:
        preprocess = Preprocess(16, (0.5,) * 3, (0.5,) * 3, resize="squash")
    after = pixels_of(record, preprocess, cache)
    fresh = pixels_of(record, preprocess)
    assert torch.equal(after.pixels, fresh.pixels)
    assert (after.mask is None) == (change == "no mask")
    if after.mask is not None:
        assert torch.equal(after.mask, fresh.mask)
    same = torch.equal(after.pixels, before.pixels) and after.mask is not None
    assert not (same and torch.equal(after.mask, before.mask))


def test_mask_of_another_size(record):
    Image.new("1", (9, 9)).save(record.mask)
    with pytest.raises(DataError, match=r"mask\.png: the mask is 9×9 px but its image is 30×20 px"):
        pixels_of(record, PREPROCESS)


def test_a_mask_of_the_pixels_of_a_file_that_are_not_square(record):
    """A mask that was saved without spacing has fewer rows than the image that is shown."""
    inside = np.zeros((20, 30), bool)
    inside[5:10, 10:20] = True
    dicom_file(record.image, inside.astype(np.uint8) * 200, PixelSpacing=[3, 2])
    Image.fromarray(inside).save(record.mask)
    shown = pixels_of(record, Preprocess(30, (0.5,) * 3, (0.5,) * 3))
    assert shown.pixels.shape == (3, 30, 30)
    bright = shown.pixels[0] > 127
    assert bright.float().mean() == pytest.approx(inside.mean(), abs=0.02)
    assert (bright != shown.mask).float().mean() < 0.02


def test_missing_image(record):
    record.image.unlink()
    with pytest.raises(DataError, match=r"image\.png: cannot be read"):
        pixels_of(record, PREPROCESS)
