import json
import os
from functools import partial

import pytest

from hica.deployment.keys import generate, public_path
from hica.deployment.lockfile import holder
from hica.errors import ConfigurationError, FederationError, StorageError
from hica.storage import write_atomically
from hica_server.enrolment import enroll, revoke
from hica_server.orchestrator import FUTILE_RUNS, LOOK_SECONDS, PATIENCE_SECONDS, Orchestrator
from hica_server.progress import Progress, read_progress
from hica_server.provision import make_authority, make_certificate
from hica_server.settings import Folder
from hica_server.superlink.control import Node, RunStatus, UnreachableError


class FakeControl:
    """A SuperLink's Control API.

    Attributes:
        registered: Nodes by key.
        runs: Status of each run; the next one started gets the next number.
        silent: Whether it does not answer.
    """

    def __init__(self):
        self.registered: dict[bytes, Node] = {}
        self.runs: dict[int, RunStatus] = {}
        self.studies: list[str] = []
        self.let_go: set[bytes] = set()
        self.silent = False

    def _answer(self):
        if self.silent:
            raise UnreachableError("refused")

    def register(self, name, public_key):
        self._answer()
        assert public_key not in self.registered
        if public_key in self.let_go:
            raise FederationError("Public key already in use")
        number = len(self.registered) + 1
        self.registered[public_key] = Node(number, name, public_key, False, "")
        return number

    def unregister(self, node):
        self._answer()
        (key,) = (key for key, known in self.registered.items() if known.id == node)
        del self.registered[key]
        self.let_go.add(key)

    def nodes(self):
        self._answer()
        return list(self.registered.values())

    def start_run(self, study_sha256):
        self._answer()
        assert not self.unfinished_runs()
        self.studies.append(study_sha256)
        self.runs[len(self.runs) + 1] = RunStatus(False, "")
        return len(self.runs)

    def run_status(self, run):
        self._answer()
        return self.runs[run]

    def unfinished_runs(self):
        self._answer()
        return [run for run, status in self.runs.items() if not status.finished]

    def stop_run(self, run):
        self._answer()
        if self.runs[run].finished:
            raise FederationError("already finished")
        self.runs[run] = RunStatus(True, "stopped")

    def fail(self, run, details):
        self.runs[run] = RunStatus(True, details)


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "server")
    make_authority(folder)
    make_certificate(folder, "localhost", 1)
    return folder


@pytest.fixture
def control():
    return FakeControl()


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand: `clock.now`."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("hica_server.orchestrator.monotonic", clock)
    return clock


@pytest.fixture
def orchestrator(folder, control, clock, toy_study):
    return Orchestrator(folder, toy_study(), control)


@pytest.fixture
def serverapp(folder, hold_elsewhere):
    """Starts processes that hold the run directory as a ServerApp does, until they are killed."""
    return partial(hold_elsewhere, folder.run_lock)


@pytest.fixture
def site(tmp_path, folder):
    """Enrols a site by name."""

    def site(name):
        generate(tmp_path / name)
        return enroll(folder, name, public_path(tmp_path / name)).key.pem

    return site


def leave_outcome(folder, run, kind=None, error=None):
    told = {"run_id": run, "ok": kind is None, "kind": kind, "error": error}
    write_atomically(folder.outcome, json.dumps(told).encode())


def look_again(orchestrator, clock):
    clock.now += LOOK_SECONDS
    return orchestrator.advance()


# --- Sites ---------------------------------------------------------------------------------------


def test_sites_are_let_in_as_they_are_enrolled_and_out_as_they_are_revoked(
    orchestrator, folder, control, clock, site
):
    orchestrator.advance()
    assert control.registered == {}
    key = site("a")
    look_again(orchestrator, clock)
    assert {key: node.name for key, node in control.registered.items()} == {key: "a"}
    look_again(orchestrator, clock)  # and not a second time
    revoke(folder, "a")
    look_again(orchestrator, clock)
    assert control.registered == {}


def test_a_key_that_the_superlink_takes_no_more_is_told_once_and_stops_nobody_else(
    orchestrator, folder, control, clock, site, caplog
):
    site("a")
    orchestrator.advance()
    enrolled = folder.sites.read_bytes()
    folder.sites.unlink()
    look_again(orchestrator, clock)
    folder.sites.write_bytes(enrolled)
    key = site("b")
    look_again(orchestrator, clock)
    look_again(orchestrator, clock)
    assert list(control.registered) == [key]
    assert caplog.text.count("a cannot be let in: Public key already in use") == 1
    assert f"delete {folder.database}" in caplog.text


def test_who_is_connected_is_kept_for_status_and_metrics(
    orchestrator, folder, control, clock, site
):
    key = site("a")
    orchestrator.advance()
    control.registered[key] = Node(1, "a", key, True, "2026-11-22")
    look_again(orchestrator, clock)
    assert json.loads(folder.connected.read_text()) == {
        "a": {"online": True, "since": "2026-11-22"}
    }


def test_a_site_that_was_connected_to_an_earlier_server_counts_once_it_is_heard_of(
    orchestrator, folder, control, clock, site
):
    key = site("a")
    control.registered[key] = Node(1, "a", key, True, "2026-11-22", online_until=60.0)
    for _ in range(2):
        look_again(orchestrator, clock)
        assert json.loads(folder.connected.read_text()) == {"a": {"online": False, "since": ""}}
    control.registered[key] = Node(1, "a", key, True, "2026-11-22", online_until=90.0)
    look_again(orchestrator, clock)
    assert json.loads(folder.connected.read_text())["a"] == {"online": True, "since": "2026-11-22"}


def test_the_superlink_is_not_asked_more_often_than_needed(
    orchestrator, folder, control, clock, site
):
    orchestrator.advance()
    site("a")
    clock.now += LOOK_SECONDS / 2
    orchestrator.advance()
    assert control.registered == {}


# --- The SuperLink -------------------------------------------------------------------------------


def test_a_superlink_that_starts_or_restarts_is_waited_for(orchestrator, control, clock):
    control.silent = True
    assert orchestrator.advance() is False
    control.silent = False
    orchestrator.advance()
    control.silent = True
    look_again(orchestrator, clock)
    control.silent = False
    look_again(orchestrator, clock)
    assert len(control.runs) == 1


def test_a_superlink_that_hangs_stops_the_server_in_the_end(orchestrator, folder, control, clock):
    orchestrator.advance()
    control.silent = True
    clock.now += PATIENCE_SECONDS
    orchestrator.advance()
    clock.now += 1
    with pytest.raises(FederationError, match=r"has not answered for 301 s \(refused\).*superlink"):
        orchestrator.advance()


def test_an_expired_certificate_stops_the_server_with_the_remedy(orchestrator, folder, clock):
    orchestrator.advance()
    make_certificate(folder, "localhost", -1)
    with pytest.raises(ConfigurationError, match=r"expired on .*hica-server provision .* --renew"):
        look_again(orchestrator, clock)


# --- Runs ----------------------------------------------------------------------------------------


def test_a_run_of_the_study_is_started_once(orchestrator, control, clock, toy_study):
    orchestrator.advance()
    look_again(orchestrator, clock)
    assert control.studies == [toy_study().sha256]


def test_what_an_earlier_server_left_is_put_away_before_a_run_starts(
    orchestrator, folder, control, serverapp
):
    control.runs[1] = RunStatus(False, "")
    leave_outcome(folder, 2)
    orphan = serverapp()
    assert orchestrator.advance() is False  # the old outcome has the number of the new run
    assert orphan.wait() < 0
    assert control.runs[1].finished
    assert control.unfinished_runs() == [2]


def test_a_run_that_ends_while_it_is_being_stopped_is_no_error(orchestrator, control, monkeypatch):
    control.runs[1] = RunStatus(False, "")
    stop = control.stop_run

    def ends_by_itself(run):
        control.fail(run, "ended")
        stop(run)

    monkeypatch.setattr(control, "stop_run", ends_by_itself)
    orchestrator.advance()
    assert control.unfinished_runs() == [2]


def test_the_study_is_at_its_end_when_a_run_says_so(orchestrator, folder, control, serverapp):
    orchestrator.advance()
    process = serverapp()
    assert orchestrator.advance() is False
    leave_outcome(folder, 1)
    assert orchestrator.advance() is True
    process.kill()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("FederationError", FederationError), ("StorageError", StorageError)],
)
def test_an_error_that_somebody_has_to_mend_stops_the_server_as_it_is(
    orchestrator, folder, kind, error
):
    orchestrator.advance()
    leave_outcome(folder, 1, kind, "state: the disk is full")
    with pytest.raises(error, match="state: the disk is full"):
        orchestrator.advance()


def test_the_outcome_of_another_run_is_not_taken_for_this_ones(orchestrator, folder):
    orchestrator.advance()
    leave_outcome(folder, 99)
    assert orchestrator.advance() is False


def test_a_serverapp_that_was_killed_is_replaced_at_once(
    orchestrator, folder, control, serverapp, caplog
):
    orchestrator.advance()
    process = serverapp()
    orchestrator.advance()
    Progress(folder).write(done=4)
    process.kill()
    process.wait()
    orchestrator.advance()
    assert "its process is gone); going on after step 4" in caplog.text
    orchestrator.advance()
    assert [status.finished for status in control.runs.values()] == [True, False]


def test_a_run_that_has_yet_to_take_the_lock_is_not_taken_for_dead(orchestrator, control, clock):
    orchestrator.advance()
    look_again(orchestrator, clock)
    look_again(orchestrator, clock)
    assert len(control.runs) == 1


def test_a_run_that_failed_before_it_took_the_lock_is_replaced(
    orchestrator, control, clock, caplog
):
    orchestrator.advance()
    control.fail(1, "ServerApp failed with exception: no torch")
    look_again(orchestrator, clock)
    orchestrator.advance()
    assert "no torch" in caplog.text
    assert len(control.runs) == 2


def test_a_serverapp_that_flower_gave_up_is_killed_before_the_next_one_starts(
    orchestrator, control, clock, serverapp
):
    orchestrator.advance()
    process = serverapp()
    control.fail(1, "No heartbeat received from the task")
    look_again(orchestrator, clock)
    orchestrator.advance()
    assert process.wait() < 0
    assert len(control.runs) == 2


def test_a_fault_in_the_program_is_tried_again_and_then_told(orchestrator, folder, control, clock):
    for run in range(1, FUTILE_RUNS + 1):
        orchestrator.advance()
        leave_outcome(folder, run, "KeyError", "'weight'")
        if run < FUTILE_RUNS:
            orchestrator.advance()
    with pytest.raises(
        FederationError, match=r"died 5 times in a row .* KeyError: 'weight'.*0 ste"
    ):
        orchestrator.advance()
    assert len(control.runs) == FUTILE_RUNS


def test_deaths_with_steps_between_them_do_not_stop_the_server(orchestrator, folder, control):
    for run in range(1, 3 * FUTILE_RUNS):
        orchestrator.advance()
        Progress(folder).write(done=run)
        leave_outcome(folder, run, "ReadError", "the network")
        orchestrator.advance()
    assert len(control.runs) == 3 * FUTILE_RUNS - 1


def test_the_run_is_ended_in_order_where_the_superlink_still_answers(orchestrator, control, caplog):
    orchestrator.stop()  # before there is one
    orchestrator.advance()
    orchestrator.stop()
    assert control.unfinished_runs() == []
    control.silent = True
    orchestrator.stop()
    assert "refused" in caplog.text


def test_a_disk_that_is_full_stops_the_server_before_a_run_starts(
    orchestrator, control, monkeypatch
):
    def full(path, data):
        raise StorageError(f"{path}: cannot be written: the disk is full")

    monkeypatch.setattr("hica_server.progress.write_atomically", full)
    with pytest.raises(StorageError, match=r"progress\.json: cannot be written: the disk is full"):
        orchestrator.advance()
    assert control.runs == {}


def test_progress_of_the_run_before_stays_until_there_is_news(orchestrator, folder):
    Progress(folder).write(done=4, bytes_up=10)
    orchestrator.advance()
    told = read_progress(folder)
    assert (told["step"], told["done"], told["bytes_up"]) == ("starting", 4, 10)


def test_nobody_but_a_serverapp_is_killed(orchestrator, folder):
    folder.run.mkdir(parents=True)
    folder.run_lock.write_text(str(os.getpid()))  # stale: nobody holds it
    orchestrator.advance()
    assert holder(folder.run_lock) is None
