"""hold and holder: one process at a time, however the one before has ended."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import pytest

from hica.deployment import lockfile
from hica.deployment.lockfile import hold, holder
from hica.errors import FederationError, StorageError

HOLD = """
import sys
from pathlib import Path
from hica.deployment.lockfile import hold
with hold(Path(sys.argv[1]), "the other"):
    print("held", flush=True)
    sys.stdin.read()
"""

ASK = """
import sys
from pathlib import Path
from hica.deployment.lockfile import holder
print("asking", flush=True)
while True:
    holder(Path(sys.argv[1]))
"""


@contextmanager
def other_process(path):
    """A process that holds the lock until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        yield other


def test_held_from_with_to_the_end_of_its_block(tmp_path):
    path = tmp_path / "service" / "lock"
    assert holder(path) is None
    with hold(path, "the coordinator"):
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_a_second_process_is_told_who_holds_it(tmp_path):
    path = tmp_path / "lock"
    with other_process(path) as other:
        assert holder(path) == other.pid
        said = f"the coordinator is running already: process {other.pid} holds .*lock.*Stop"
        with pytest.raises(FederationError, match=said), hold(path, "the coordinator"):
            pytest.fail("held twice")
        other.stdin.close()
        other.wait()
    with hold(path, "the coordinator"):
        assert path.read_text() == str(os.getpid())


def test_a_killed_holder_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    with other_process(path) as other:
        other.kill()
        other.wait()
        assert holder(path) is None
        with hold(path, "the coordinator"):
            assert holder(path) == os.getpid()


def test_asking_who_holds_it_takes_it_from_nobody(tmp_path):
    path = tmp_path / "lock"
    with hold(path, "the coordinator"):
        pass
    command = [sys.executable, "-c", ASK, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "asking\n"
        try:
            for _ in range(200):
                with hold(path, "the coordinator"):
                    pass
        finally:
            other.kill()


def test_an_error_in_the_block_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "lock", "it"):
        raise ZeroDivisionError
    assert holder(tmp_path / "lock") is None


def test_no_started_process_inherits_it(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", "print('begun', flush=True); input()"]
    with hold(path, "it"):
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, close_fds=False
        )
    with child:
        assert child.stdout.readline() == "begun\n"
        assert holder(path) is None
        child.communicate("\n")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "service").write_text("")
    said = pytest.raises(StorageError, match=r"lock: cannot be written: .*free space")
    with said, hold(tmp_path / "service" / "lock", "it"):
        pytest.fail("held")


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    said = pytest.raises(StorageError, match="lock: cannot be written: No space left")
    with said, hold(tmp_path / "lock", "it"):
        pytest.fail("held")
    assert holder(tmp_path / "lock") is None


@pytest.mark.parametrize("module", ["lockfile", "supervision"])
def test_windows_is_told_that_linux_is_needed(module):
    code = f"import sys; sys.platform = 'win32'; import hica.deployment.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigurationError: coordinator and hospitals run on Linux" in done.stderr


# --- Ending the holder ---------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path, hold_elsewhere):
    return partial(hold_elsewhere, tmp_path / "lock")


def test_where_nobody_holds_it_there_is_nobody_to_end(tmp_path):
    assert lockfile.end_holder(tmp_path / "lock") is False


def test_the_holder_is_ended_and_waited_for(tmp_path, start):
    process = start()
    assert lockfile.end_holder(tmp_path / "lock") is True
    assert holder(tmp_path / "lock") is None
    assert process.wait() == -signal.SIGTERM


def test_a_holder_that_does_not_end_is_told_with_the_remedy(tmp_path, start, monkeypatch):
    process = start(deaf=True)
    monkeypatch.setattr(lockfile, "STOP_SECONDS", 0.0)
    said = rf"{process.pid} has not ended.*kill -9 {process.pid}"
    with pytest.raises(FederationError, match=said):
        lockfile.end_holder(tmp_path / "lock")
