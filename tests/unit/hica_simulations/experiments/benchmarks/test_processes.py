import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from hica_simulations.experiments.benchmarks import processes
from hica_simulations.experiments.benchmarks.processes import (
    Process,
    is_alive,
    kind_of,
    left_behind,
    own_processes,
    processes_below,
    repeating,
)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """Makes processes in a folder that looks like /proc."""

    def make(pid: int, parent: int, command: str, resident: int = 100, state: str = "S"):
        folder = tmp_path / str(pid)
        folder.mkdir()
        fields = [state, str(parent), *["0"] * 17, "777", "0"]
        (folder / "stat").write_text(f"{pid} (a (b) c) {' '.join(fields)}\n")
        (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
        memory = "" if state == "Z" else memory_lines(resident)
        (folder / "status").write_text(f"Name:\ta (b) c\nPPid:\t{parent}\n{memory}Threads:\t1\n")

    def memory_lines(resident: int) -> str:
        return (
            f"VmHWM:\t {resident + 10} kB\nVmRSS:\t {resident} kB\nRssAnon:\t {resident - 10} kB\n"
        )

    monkeypatch.setattr(processes, "PROC", tmp_path)
    make.folder = tmp_path
    return make


def test_processes_are_found_however_deep_and_those_of_others_are_not(proc):
    proc(10, 1, "python -m hica_simulations.experiments.benchmarks")
    proc(11, 10, "/venv/bin/python /venv/bin/hica-server run folder", resident=200)
    proc(12, 11, "/venv/bin/python /venv/bin/flower-superexec --runtime-api-address there")
    proc(13, 12, "/venv/bin/python /venv/bin/flwr-serverapp --token x")
    proc(20, 1, "/venv/bin/python /venv/bin/hica-server run another")
    found = {process.pid: process for process in processes_below(10)}
    assert {pid: process.kind for pid, process in found.items()} == {
        11: "hica-server",
        12: "superexec",
        13: "serverapp",
    }
    assert found[11] == Process(11, 777, "hica-server", 200 * 1024, 190 * 1024, 210 * 1024)


def test_what_a_process_has_started_is_called_its_child(proc):
    proc(11, 10, "python flwr-serverapp")
    proc(12, 11, "python -B -c from_multiprocessing.spawn")
    proc(13, 12, "sh -c true")
    proc(14, 10, "sh -c true")
    found = {process.pid: process.kind for process in processes_below(10)}
    assert found == {
        11: "serverapp",
        12: "serverapp's child",
        13: "serverapp's child",
        14: "other",
    }


def test_one_that_has_ended_is_left_out(proc):
    proc(11, 10, "python flwr-serverapp", state="Z")
    (proc.folder / "12").mkdir()  # gone while it is looked at
    assert processes_below(10) == []


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/bin/python -m hica_server.superlink --host 127.0.0.1", "superlink"),
        ("/bin/python -m hica_server.gateway /srv/hica-server 8000", "gateway"),
        ("/bin/python -m hica_client.supernode --superlink there", "supernode"),
        ("/bin/python -m hica_client.flower_runner site.toml", "runner"),
        ("/bin/python /bin/hica-client run /srv/hica-server/site.toml", "hica-client"),
        ("/bin/cat hica-serverless flower", None),
        ("/bin/sh -c sleep /bin/hica-server", None),
        ("", None),
    ],
)
def test_a_kind_is_known_by_program_or_module(command, kind):
    assert kind_of(command.split(" ")) == kind


def test_a_process_is_alive_while_it_runs_and_is_the_same(proc):
    proc(11, 10, "python flwr-serverapp")
    proc(12, 10, "python flwr-serverapp", state="Z")
    process = Process(11, 777, "serverapp", 1, 1, 1)
    assert is_alive(process)
    assert not is_alive(replace(process, born=778))  # its number was given again
    assert not is_alive(replace(process, pid=12))  # waits to be looked at
    assert not is_alive(replace(process, pid=13))


def test_a_real_child_is_seen_and_told_if_it_stays():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (seen,) = [process for process in own_processes() if process.pid == child.pid]
        assert 0 < seen.anonymous <= seen.resident <= seen.peak
        assert left_behind([seen], seconds=0) == [f"other ({child.pid})"]
    finally:
        child.kill()
        child.wait()
    assert left_behind([seen], seconds=0) == []
    assert os.getpid() not in [process.pid for process in own_processes()]


def test_work_is_repeated_until_the_end_of_the_block():
    done = threading.Semaphore(0)
    with repeating(done.release, 0.001):
        for _ in range(3):
            assert done.acquire(timeout=30)
    while done.acquire(blocking=False):
        pass
    assert not done.acquire(timeout=0.05)


def test_what_the_work_raises_is_raised_at_the_end_of_the_block():
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise ValueError("no such process")

    with pytest.raises(ValueError, match="no such process"), repeating(fail, 0.001):
        assert failed.wait(30)
