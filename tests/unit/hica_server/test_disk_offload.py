import gc
from pathlib import Path

import numpy as np
import pytest

from hica.errors import StorageError
from hica.steps.alignment import ALIGNMENT
from hica.wire.messages import Reply
from hica_server.disk_offload import LARGE, OffloadedArrays, offloaded

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float16).reshape(2, 3),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "scalar": np.asarray(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "flags": np.asarray([True, False]),
}


def test_arrays_come_back_to_the_bit_in_their_order(tmp_path):
    kept = OffloadedArrays(ARRAYS, tmp_path)
    assert list(kept) == list(ARRAYS) and len(kept) == len(ARRAYS)
    for name in reversed(ARRAYS):
        assert (kept[name].dtype, kept[name].shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
        np.testing.assert_array_equal(kept[name], ARRAYS[name])


def test_nothing_of_them_is_found_in_the_folder_or_left_on_the_disk(tmp_path):
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    kept = OffloadedArrays(ARRAYS, tmp_path)
    assert not any(tmp_path.iterdir())
    del kept
    gc.collect()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def reply_of(bytes_):
    arrays = {"w": np.zeros(bytes_, np.uint8)}
    return Reply(ALIGNMENT.kind, "north", 3, 10, {"loss": 0.5}, arrays)


def test_only_large_replies_are_put_on_disk(tmp_path):
    small, large = reply_of(LARGE - 1), reply_of(LARGE)
    assert offloaded(small, tmp_path) is small
    kept = offloaded(large, tmp_path)
    assert isinstance(kept.arrays, OffloadedArrays)
    assert (kept.site, kept.examples, kept.details) == ("north", 10, {"loss": 0.5})
    np.testing.assert_array_equal(kept.arrays["w"], large.arrays["w"])


def test_what_does_not_fit_on_the_disk_is_told(tmp_path):
    with pytest.raises(StorageError, match="the update of north could not be kept"):
        offloaded(reply_of(LARGE), tmp_path / "nowhere")
