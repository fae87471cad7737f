import errno
import hashlib
import os

import pytest
import torch

from hica.errors import StorageError
from hica.images.cache import TensorCache, file_sha256, image_key, key_of

KEY = key_of("a tensor")


@pytest.fixture
def cache(tmp_path):
    return TensorCache(tmp_path)


def test_file_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"hica" * 10_000)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"hica" * 10_000).hexdigest()


def test_keys_are_stable_and_keep_parts_apart():
    # printf '["pixels", "1"]' | sha256sum
    assert key_of("pixels", 1) == "6e210af370c23477a1369f0ab465ce7c012c4dcd1e11a3079aae0640e388072e"
    assert key_of("ab", "c") != key_of("a", "bc")


def test_what_is_put_comes_back(cache):
    table = torch.arange(12, dtype=torch.float16).reshape(3, 4).requires_grad_()
    tensors = {
        "half": table,
        "transposed": table.t(),
        "row": table[1],  # shares the storage of `half`
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 5),
    }
    cache.put(KEY, tensors)
    back = cache.get(KEY)
    assert back is not None
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_place_on_disk_and_absent_key(cache, tmp_path):
    assert cache.get(KEY) is None
    cache.put(KEY, {"x": torch.ones(2)})
    assert (tmp_path / KEY[:2] / f"{KEY}.safetensors").is_file()
    assert cache.get(key_of("another")) is None


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_truncated_file_is_dropped_and_may_be_put_again(cache, tmp_path, length):
    cache.put(KEY, {"x": torch.ones(20)})
    path = tmp_path / KEY[:2] / f"{KEY}.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert cache.get(KEY) is None
    assert not path.exists()
    cache.put(KEY, {"x": torch.ones(20)})
    assert torch.equal(cache.get(KEY)["x"], torch.ones(20))


def test_full_disk(cache, tmp_path, monkeypatch):
    def full_disk(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(StorageError, match="No space left on device; free space"):
        cache.put(KEY, {"x": torch.ones(2)})
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    assert cache.get(KEY) is None


def test_what_was_computed_from_an_image_is_forgotten_and_nothing_else(cache):
    image, other = "ab" * 32, "ab" + "cd" * 31
    for each in (image, other):
        for part in ("pixels", "views"):
            cache.put(image_key(each, part), {"x": torch.ones(2)})
    cache.forget(image)
    assert cache.get(image_key(image, "pixels")) is cache.get(image_key(image, "views")) is None
    assert cache.get(image_key(other, "pixels"))["x"].tolist() == [1, 1]
    cache.forget(image)  # twice is no fault


def test_what_cannot_be_forgotten_is_said(cache, monkeypatch):
    cache.put(image_key("ab" * 32, "pixels"), {"x": torch.ones(2)})

    def refused(self, missing_ok):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    with pytest.raises(StorageError, match="Permission denied"):
        cache.forget("ab" * 32)
