import errno
import json
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from hica.errors import CheckpointError, StorageError
from hica.wire.checkpoint import has_state, load_state, save_state, write_json


def state(round: int):
    arrays = {
        "weight": np.full((3, 4), round, dtype=np.float32),
        "moment": np.arange(5, dtype=np.float64) * round,
        "step": np.asarray(round),
    }
    return arrays, {"round": round, "sites": ["north", "south"]}


def save(folder: Path, round: int) -> Path:
    return save_state(folder, "server", *state(round))


def loaded_round(folder: Path) -> int:
    """The round of the state on disk, after checking that arrays and metadata belong together."""
    arrays, meta = load_state(folder, "server")
    expected, expected_meta = state(meta["round"])
    assert meta == expected_meta
    assert arrays.keys() == expected.keys()
    for key, array in expected.items():
        assert arrays[key].dtype == array.dtype and arrays[key].shape == array.shape
        np.testing.assert_array_equal(arrays[key], array)
    return meta["round"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(()),
        np.zeros((0, 3), dtype=np.float32),
        np.asarray([[True, False]]),
        np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        np.asarray([np.nan, np.inf, -0.0], dtype=np.float32),
        torch.arange(6, dtype=torch.uint8).reshape(3, 2).T,
        torch.ones(2, requires_grad=True),
    ],
    ids=["0-d", "empty", "bool", "transposed", "fortran", "non-finite", "tensor", "gradient"],
)
def test_any_array_comes_back_to_the_bit(tmp_path, array):
    save_state(tmp_path, "any", {"a": array}, {"text": "naïve", "nested": {"x": [1, 2.5, None]}})
    arrays, meta = load_state(tmp_path, "any")
    expected = array.detach().numpy() if isinstance(array, torch.Tensor) else array
    assert arrays["a"].dtype == expected.dtype and arrays["a"].shape == expected.shape
    assert arrays["a"].tobytes() == expected.tobytes()
    assert meta == {"text": "naïve", "nested": {"x": [1, 2.5, None]}}


def test_a_state_is_a_plain_safetensors_file(tmp_path):
    path = save(tmp_path / "made" / "here", 1)
    with safe_open(path, framework="pt") as file:
        assert sorted(file.keys()) == ["moment", "step", "weight"]
        assert json.loads(file.metadata()["meta"])["round"] == 1


def test_the_newest_state_is_loaded_and_the_one_before_is_kept(tmp_path):
    assert not has_state(tmp_path, "server")
    for round in (1, 2, 3):
        save(tmp_path, round)
    assert loaded_round(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == {
        "server.safetensors",
        "server.previous.safetensors",
    }
    (tmp_path / "server.safetensors").unlink()
    assert has_state(tmp_path, "server")
    assert loaded_round(tmp_path) == 2


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"server\.safetensors: no such state; check the run"):
        load_state(tmp_path, "server")


@pytest.fixture(scope="module")
def saved_bytes(tmp_path_factory) -> bytes:
    return save(tmp_path_factory.mktemp("saved"), 7).read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_truncation_is_detected(saved_bytes, data):
    length = data.draw(st.integers(0, len(saved_bytes) - 1))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "server.safetensors").write_bytes(saved_bytes[:length])
        with pytest.raises(CheckpointError, match=r"damaged .*no whole state is left"):
            load_state(Path(folder), "server")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_detected_or_changes_nothing(saved_bytes, data):
    place = data.draw(st.integers(0, len(saved_bytes) - 1))
    changed = bytearray(saved_bytes)
    changed[place] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "server.safetensors").write_bytes(changed)
        try:
            assert loaded_round(Path(folder)) == 7  # padding of the header, for example
        except CheckpointError as error:
            assert "damaged" in str(error)


def test_a_damaged_state_gives_way_to_the_previous_and_never_becomes_it(tmp_path, caplog):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert loaded_round(tmp_path) == 1
    assert "server.safetensors: torn or damaged" in caplog.text
    save(tmp_path, 3)
    (tmp_path / "server.safetensors").unlink()
    assert loaded_round(tmp_path) == 1


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may catch it."""


def kill_at(monkeypatch, step: int) -> None:
    """Die just before the step-th call that touches the disk; at a flush, with half written."""
    left = [step]

    def dying(name, call):
        def wrapper(*args, **kwargs):
            if left[0] == 0:
                if name == "fsync" and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.truncate(args[0], 100)
                raise Killed
            left[0] -= 1
            return call(*args, **kwargs)

        return wrapper

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, dying(name, getattr(os, name)))


@pytest.mark.parametrize("existing", [0, 1, 2, 3])
def test_killed_at_any_step_the_old_or_the_new_state_is_whole(tmp_path, existing):
    outcomes = []
    for step in range(10):
        folder = tmp_path / str(step)
        for round in range(existing):
            save(folder, round)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            try:
                save(folder, existing)
            except Killed:
                killed = True
            else:
                killed = False
        if has_state(folder, "server"):
            outcomes.append(loaded_round(folder))
            save(folder, existing + 1)
            assert loaded_round(folder) == existing + 1
        else:
            outcomes.append(None)
        if not killed:
            break
    old = existing - 1 if existing else None
    assert not killed
    assert outcomes[0] == old and outcomes[-1] == existing
    assert set(outcomes) == {old, existing}


@contextmanager
def small_files():
    """No file of this process may have more than 100 bytes: what is written breaks off there."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_write_that_breaks_off_is_a_storage_error_and_the_state_is_untouched(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = saved(tmp_path)
    with small_files(), pytest.raises(StorageError) as caught:
        save(tmp_path, 3)
    for part in (str(tmp_path / "server.safetensors"), "File too large", "mend", "untouched"):
        assert part in str(caught.value)
    assert saved(tmp_path) == before


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("I/O error: No space left on device (os error 28)", "the disk is full: free space there"),
        ("something without a number", "mend this"),
    ],
)
def test_what_safetensors_tells_of_the_disk_is_understood(tmp_path, monkeypatch, told, words):
    save(tmp_path, 1)

    def refuse(arrays, path, header):
        Path(path).write_bytes(b"half")
        raise SafetensorError(told)

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", refuse)
        with pytest.raises(StorageError, match=words):
            save(tmp_path, 2)
    assert list(saved(tmp_path)) == ["server.safetensors"]
    assert loaded_round(tmp_path) == 1


def test_what_a_killed_save_left_behind_is_gone_after_the_next(tmp_path):
    left = tmp_path / "server.safetensors.tmp"
    left.mkdir()
    (left / ".tmpX").write_bytes(b"half")
    save(tmp_path, 1)
    assert list(saved(tmp_path)) == ["server.safetensors"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EACCES, "writable"),
        (errno.EIO, "mend this"),
    ],
)
def test_what_the_disk_refuses_is_a_storage_error_with_a_remedy(
    tmp_path, monkeypatch, code, remedy
):
    save(tmp_path, 1)

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=remedy):
            save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["server.safetensors"]
    assert loaded_round(tmp_path) == 1


def test_json_is_replaced_whole_and_holds_no_nan(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_json(path, {"old": True})
    write_json(path, {"auroc": float("nan"), "interval": (0.5, float("inf")), "name": "naïve"})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "auroc": None,
        "interval": [0.5, None],
        "name": "naïve",
    }
    assert [item.name for item in path.parent.iterdir()] == ["report.json"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_json(path, {"round": 1})

    def refuse(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"report\.json: could not be written"):
        write_json(path, {"round": 2})
    assert json.loads(path.read_text()) == {"round": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]
