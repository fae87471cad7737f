import json

import pytest

from hica.deployment.keys import generate, public_path
from hica.deployment.lockfile import hold
from hica_server.enrolment import enroll, revoke
from hica_server.progress import Progress
from hica_server.settings import Folder
from hica_server.status import lines, status


@pytest.fixture
def folder(tmp_path):
    """A folder of two enrolled sites, and what a server leaves of processes and connections."""
    folder = Folder(tmp_path / "server")
    for name in ("a", "b"):
        generate(tmp_path / name)
        enroll(folder, name, public_path(tmp_path / name))
    folder.service.mkdir(parents=True)
    processes = {
        "superlink": {"pid": 7, "started": "2026", "restarts": 1, "port": 8000},
        "superexec": {"pid": None, "started": None, "restarts": 2, "port": None},
    }
    folder.processes.write_text(json.dumps(processes))
    connected = {"a": {"online": True, "since": "2026-11-22T10:00:00.123+00:00"}}
    folder.connected.write_text(json.dumps(connected))
    return folder


def test_before_the_first_run_there_is_little_to_say(tmp_path):
    told = status(tmp_path)
    assert (told["running"], told["pid"], told["finished"]) == (False, None, False)
    assert (told["services"], told["run"], told["sites"]) == ({}, {}, {})
    assert lines(told) == ["not running"]


def test_of_a_running_server_all_is_told(folder):
    progress = Progress(folder)
    progress.step("alignment 1/2", 4, 9)
    progress.write(done=4, failures=3)
    with hold(folder.lock, "it"):
        told = status(folder.root)
        assert told["running"]
        assert told["services"]["superlink"]["port"] == 8000
        assert told["sites"] == {
            "a": {"enrolled": True, "online": True, "since": "2026-11-22T10:00:00.123+00:00"},
            "b": {"enrolled": True, "online": False, "since": None},
        }
        assert lines(told) == [
            f"running      process {told['pid']}",
            "superlink    process 7, port 8000, 1 restarts",
            "superexec    waiting to be restarted, 2 restarts",
            "run          4 of 9 steps done, at: alignment 1/2; 3 answers failed",
            "site a: connected since 2026-11-22T10:00:00",
            "site b: not connected",
        ]


def test_what_a_server_left_behind_is_not_taken_for_running(folder):
    told = status(folder.root)
    assert (told["running"], told["services"]) == (False, {})
    assert not told["sites"]["a"]["online"]


def test_a_revoked_site_and_a_finished_study_are_told(folder):
    revoke(folder, "a")
    folder.run.mkdir()
    (folder.run / "result.json").write_text("{}")
    assert lines(status(folder.root)) == ["finished", "site a: revoked", "site b: not connected"]
