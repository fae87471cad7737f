"""write_atomically: the old file, the new file, or an error; never half of one."""

import errno
import os
import stat

import pytest

from hica.errors import StorageError
from hica.storage import keep_private, open_to_others, read_file, replacing, write_atomically


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["b.bin"]


@pytest.mark.parametrize("at", ["write", "rename"])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, at):
    path = tmp_path / "b.bin"
    write_atomically(path, b"old")
    if at == "rename":
        monkeypatch.setattr(os, "replace", full_disk)
    else:
        monkeypatch.setattr("pathlib.Path.write_bytes", half_written)
    with pytest.raises(StorageError, match=r"b\.bin: cannot be written: No space left.*free space"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def half_written(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    full_disk()


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path / "a" / "b.bin", b"new")


def test_a_secret_is_for_its_owner_only_from_its_first_byte(tmp_path, monkeypatch):
    path = tmp_path / "key"
    seen = []

    def write_bytes(part, data):
        seen.append(part.stat().st_mode & 0o777)
        with part.open("wb") as file:
            file.write(data)

    monkeypatch.setattr("pathlib.Path.write_bytes", write_bytes)
    write_atomically(path, b"secret", mode=0o600)
    assert seen == [0o600]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def synced(monkeypatch):
    """What was waited for, in its order."""
    seen = []

    def fsync(number):
        seen.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_the_file_is_on_disk_before_it_takes_its_place_and_its_folder_after(tmp_path, synced):
    write_atomically(tmp_path / "b.bin", b"new")
    assert synced == ["file", "folder"]


def test_what_can_be_computed_again_is_not_waited_for(tmp_path, synced):
    write_atomically(tmp_path / "b.bin", b"new", durable=False)
    assert (synced, (tmp_path / "b.bin").read_bytes()) == ([], b"new")


def test_the_file_that_was_there_is_kept_where_it_is_asked_for(tmp_path):
    path, previous = tmp_path / "b.bin", tmp_path / "b.previous.bin"
    for data in (b"one", b"two"):
        with replacing(path, previous=previous) as part:
            part.write_bytes(data)
    assert (path.read_bytes(), previous.read_bytes()) == (b"two", b"one")


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_of_a_private_process_are_closed(tmp_path, umask):
    keep_private()
    write_atomically(tmp_path / "a" / "b.bin", b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b.bin").stat().st_mode & 0o777 == 0o600
    assert open_to_others(tmp_path / "a") == ""


def test_an_open_folder_is_told_with_the_remedy(tmp_path, umask):
    folder = tmp_path / "my state"
    assert open_to_others(folder) == ""  # there is none
    write_atomically(folder / "b.bin", b"x")
    write_atomically(folder / "c.bin", b"x", mode=0o600)
    (folder / "link").symlink_to("/etc/passwd")
    assert open_to_others(folder) == (
        f"{folder}: others on this machine can read it, and 1 files and folders in it. "
        f"Run: chmod -R go= '{folder}'"
    )
    assert open_to_others(folder, 0o022, "change") == ""
    folder.chmod(0o770)
    assert f"can change it, and 0 files and folders in it. Run: chmod -R go-w '{folder}'" in (
        open_to_others(folder, 0o022, "change")
    )
    folder.chmod(0o700)
    assert open_to_others(folder) == ""  # a closed folder closes what is in it


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe or a device, not a file"):
        read_file(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    (tmp_path / "file").write_bytes(b"whole")
    assert read_file(tmp_path / "file") == b"whole"
