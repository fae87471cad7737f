import fcntl
import os
import resource
import signal
import subprocess
import sys

import pytest

from hica.errors import StorageError
from hica_client import journal
from hica_client.journal import append_line, opened, read_lines


def append(path, line):
    with opened(path) as file:
        return append_line(file, line)


def test_lines_are_added_and_read(tmp_path):
    path = tmp_path / "state" / "journal.jsonl"
    assert read_lines(path) == []
    assert append(path, b"one\n") == 4
    assert append(path, b"two\n") == 8
    assert read_lines(path) == [b"one", b"two"]


@pytest.mark.parametrize("torn", [b"tw", b"one\ntw"])
def test_an_unfinished_last_line_is_passed_over_and_cut_off_by_the_next(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(torn)
    whole = torn[: torn.rfind(b"\n") + 1]
    assert read_lines(path) == whole.split(b"\n")[:-1]
    append(path, b"three\n")
    assert path.read_bytes() == whole + b"three\n"


def test_only_a_newline_ends_a_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"a\r\nb\x0bc\n")
    assert read_lines(path) == [b"a\r", b"b\x0bc"]


def test_a_line_that_does_not_fit_is_an_error_and_the_next_one_cuts_it_off(tmp_path):
    """A real limit of the kernel on the size of a file, in a process of its own."""
    path = tmp_path / "journal.jsonl"
    append(path, b"one\n")
    code = (
        "import sys; from pathlib import Path; from hica.errors import StorageError\n"
        "from hica_client.journal import append_line, opened\n"
        "try:\n"
        "    with opened(Path(sys.argv[1])) as file: append_line(file, b'x' * 2000 + b'\\n')\n"
        "except StorageError as error: print(error)\n"
    )

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, preexec_fn=small_files
    )
    assert f"{path}: cannot be written" in done.stdout, done.stderr
    assert path.stat().st_size == 1024
    assert read_lines(path) == [b"one"]
    append(path, b"two\n")
    assert read_lines(path) == [b"one", b"two"]


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "state").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match=r"state/journal\.jsonl: cannot be written"):
        append(tmp_path / "state" / "journal.jsonl", b"one\n")
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"journal\.jsonl: cannot be read"):
        read_lines(tmp_path / "journal.jsonl")


def test_a_line_is_on_disk_before_it_counts(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    seen = []
    monkeypatch.setattr(journal.os, "fsync", lambda number: seen.append(os.fstat(number).st_size))
    append(path, b"one\n")
    assert seen == [4]


def test_a_journal_is_held_by_one_writer_at_a_time(tmp_path):
    path = tmp_path / "journal.jsonl"
    with opened(path), path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
