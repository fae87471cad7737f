"""ServiceOutput: every line is kept and heard, and reading ends with the process."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from hica.deployment import service_output
from hica.deployment.service_output import ServiceOutput, append
from hica.errors import StorageError


class Pipe:
    """A pipe and what was heard of it."""

    def __init__(self, log, heard=None) -> None:
        read, self.write_end = os.pipe()
        self.heard: list[str] = []
        self.output = ServiceOutput(os.fdopen(read, "rb", 0), log, heard or self.heard.append)

    def write(self, data: bytes) -> None:
        os.write(self.write_end, data)

    def end(self) -> list[str]:
        os.close(self.write_end)
        self.output.close()
        return self.heard


def kept(log) -> list[str]:
    """The lines of a log without their times."""
    return [line.partition(" ")[2] for line in log.read_text().splitlines()]


def test_lines_are_heard_and_kept_with_the_time(tmp_path):
    log = tmp_path / "logs" / "superlink.log"
    pipe = Pipe(log)
    pipe.write(b"one\ntwo\n")
    assert pipe.end() == ["one", "two"]
    assert kept(log) == ["one", "two"]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{time} one\n{time} two\n", log.read_text())


def test_a_line_in_two_writes_is_one_line(tmp_path):
    pipe = Pipe(tmp_path / "a.log")
    pipe.write(b"SuperNode ")
    pipe.write(b"ID: 7\n")
    assert pipe.end() == ["SuperNode ID: 7"]


def test_the_last_line_needs_no_end(tmp_path):
    pipe = Pipe(tmp_path / "a.log")
    pipe.write(b"Killed")
    assert pipe.end() == ["Killed"]


def test_colours_and_what_is_no_text(tmp_path):
    pipe = Pipe(tmp_path / "a.log")
    pipe.write(b"\x1b[92mINFO \x1b[0m: \xff\xc3\xa9\r\n")
    assert pipe.end() == ["INFO : \N{REPLACEMENT CHARACTER}é"]


def test_output_without_lines_is_not_gathered_without_end(tmp_path):
    pipe = Pipe(tmp_path / "a.log")
    for _ in range(100):
        pipe.write(b"x" * 10_000)
    heard = pipe.end()
    assert len(heard) > 1
    assert "".join(heard) == "x" * 1_000_000


def test_reading_ends_with_the_process_though_its_pipe_is_still_held(tmp_path):
    pipe = Pipe(tmp_path / "a.log")
    pipe.write(b"last words\n")
    pipe.output.close()
    assert pipe.heard == ["last words"]
    with pytest.raises(BrokenPipeError):
        pipe.write(b"from an orphan\n")
    os.close(pipe.write_end)


def test_an_orphan_that_never_stops_printing_is_left_to_itself(tmp_path):
    read, write = os.pipe()
    output = ServiceOutput(os.fdopen(read, "rb", 0), tmp_path / "a.log", lambda line: None)
    with subprocess.Popen(["yes"], stdout=write) as orphan:
        os.close(write)
        output.close()
        assert orphan.wait() == -signal.SIGPIPE


def test_nothing_is_left_open(tmp_path):
    def open_things() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = open_things()
    for _ in range(5):
        Pipe(tmp_path / "a.log").end()
    assert open_things() == before


def test_a_log_begins_anew_when_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(service_output, "FILE_BYTES", 100)
    log = tmp_path / "a.log"
    for number in range(60):
        append(log, [f"line {number}"])
    files = [log, *(tmp_path / f"a.log.{number}" for number in (1, 2, 3, 4))]
    assert sorted(tmp_path.iterdir()) == files
    assert [line for file in reversed(files) for line in kept(file)][-1] == "line 59"
    numbers = [int(line.split()[1]) for file in reversed(files) for line in kept(file)]
    assert numbers == list(range(numbers[0], 60))
    assert all(file.stat().st_size < 200 for file in files)


def test_a_full_disk_costs_lines_only(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service_output, "append", full)
    pipe = Pipe(tmp_path / "a.log")
    pipe.write(b"one\ntwo\n")
    assert pipe.end() == ["one", "two"]


def test_a_listener_that_fails_does_not_stop_the_reading(tmp_path, caplog):
    def fail(line):
        raise ZeroDivisionError

    pipe = Pipe(tmp_path / "a.log", fail)
    pipe.write(b"one\ntwo\n")
    pipe.end()
    assert kept(tmp_path / "a.log") == ["one", "two"]
    assert [record.message for record in caplog.records] == ["a line of output was passed over"] * 2


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(StorageError, match=r"a\.log: cannot be written"):
        ServiceOutput(None, tmp_path / "logs" / "a.log", print)
