import stat
import tempfile

import pytest
from tests.unit.hica_client.pacs.files import ROOT, dataset, file_of

from hica.errors import ConfigurationError, FederationError, StorageError
from hica_client.pacs.errors import LostInstanceError
from hica_client.pacs.store import opened

SOP, STUDY = f"{ROOT}.1.1.1", f"{ROOT}.1"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def keep(store, content=None):
    with store.part() as part:
        part.write_bytes(content if content is not None else file_of(dataset()))
        store.keep(part, SOP, STUDY)


def test_files_are_private_and_named_by_nothing(store):
    keep(store)
    path = store.path(SOP)
    assert store.holds(SOP, STUDY)
    assert (mode(path), mode(path.parent), mode(store.folder)) == (0o600, 0o700, 0o700)
    assert ROOT not in str(path.relative_to(store.folder))
    assert (store.fetched, store.bytes) == (1, path.stat().st_size)


def test_a_file_that_is_not_whole_leaves_nothing(store):
    with pytest.raises(LostInstanceError):
        keep(store, file_of(dataset())[:-1])
    assert not store.path(SOP).exists()
    assert not list(store.folder.glob(".pull/parts/*"))


def test_what_a_killed_pull_left_is_cleared(tmp_path):
    left = tmp_path / ".pull" / "parts" / "left.dcm"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with opened(tmp_path, 100) as store:
        assert not left.exists()
        assert tempfile.gettempdir() == str(store.folder / ".pull" / "parts")
    assert tempfile.gettempdir() != str(tmp_path / ".pull" / "parts")


def test_two_pulls_into_one_folder_are_refused(store):
    with (
        pytest.raises(FederationError, match=r"a pull into .* is running already"),
        opened(store.folder, 100),
    ):
        pass


def test_a_folder_that_others_may_read_is_refused_and_an_empty_one_closed(tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
        folder.chmod(0o755)
    (full / "file").write_text("")
    with opened(empty, 100):
        assert mode(empty) == 0o700
    with (
        pytest.raises(ConfigurationError, match=r"others on this machine can read it.*chmod"),
        opened(full, 100),
    ):
        pass


def test_a_full_disk_is_said_and_leaves_what_is_whole(store, monkeypatch):
    keep(store)
    monkeypatch.setattr("hica.storage._sync", _full)
    with pytest.raises(StorageError, match="free space"):
        keep(store)
    assert store.holds(SOP, STUDY)


def _full(*_):
    raise OSError(28, "No space left on device")
