import json
import logging

import pytest
import tomli_w

from hica.deployment.keys import generate, public_path
from hica.deployment.kit import roster_json
from hica.errors import ConfigurationError, FederationError, StorageError
from hica.study.sections import FederationSection
from hica_server import deployed
from hica_server.deployed import (
    conduct,
    gather,
    leaving_outcome,
    logging_to,
    make_roster,
    registered_keys,
)
from hica_server.enrolment import enroll, revoke
from hica_server.settings import Folder

# --- Waiting for sites ---------------------------------------------------------------------------


def terms(**changes):
    return FederationSection(**{"quorum": 2, "gather": 30.0, "deadline": 600.0, **changes})


class Arrivals:
    """A roster whose sites change with every look; each look takes `seconds`."""

    def __init__(self, monkeypatch, *looks, seconds=1.0):
        self.looks = list(looks)
        self.clock = 0.0
        self.seconds = seconds
        monkeypatch.setattr(deployed.time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(deployed.time, "sleep", lambda _: None)

    def __call__(self):
        self.clock += self.seconds
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def gathered(arrivals, **changes):
    """Who was told to be absent, in order."""
    told = []
    gather(arrivals, terms(**changes), told.append)
    return told


def test_all_enrolled_sites_are_waited_for_and_those_absent_told_once(monkeypatch):
    none, one, both = {"a": None, "b": None}, {"a": 1, "b": None}, {"a": 1, "b": 2}
    arrivals = Arrivals(monkeypatch, none, none, one, one, both)
    assert gathered(arrivals) == [["a", "b"], ["b"]]
    assert arrivals.clock == 5.0


def test_with_the_quorum_the_rest_is_waited_for_no_longer_than_gather(monkeypatch):
    arrivals = Arrivals(monkeypatch, {"a": 1, "b": 2, "c": None})
    assert gathered(arrivals, gather=30.0) == [["c"]]
    assert arrivals.clock == 30.0


def test_the_quorum_is_waited_for_as_long_as_in_a_round(monkeypatch):
    arrivals = Arrivals(monkeypatch, {"a": 1, "b": None})
    gathered(arrivals, gather=30.0, deadline=100.0)
    assert arrivals.clock == 100.0


def test_sites_may_be_enrolled_while_the_server_waits(monkeypatch):
    arrivals = Arrivals(monkeypatch, {}, {}, {"a": 1, "b": 2})
    assert gathered(arrivals) == [[]]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "server")


@pytest.fixture
def enrolled(folder, tmp_path):
    for name in ("a", "b", "c"):
        generate(tmp_path / name)
        enroll(folder, name, public_path(tmp_path / name))
    return folder


class Connected:
    def connected(self):
        return {"a": 1, "c": 3, "stranger": 4}


def test_the_roster_holds_enrolled_sites_that_are_not_revoked(enrolled):
    revoke(enrolled, "c")
    assert make_roster(enrolled, Connected())() == {"a": 1, "b": None}


def test_the_roster_follows_the_file(enrolled):
    roster = make_roster(enrolled, Connected())
    assert roster()["c"] == 3
    revoke(enrolled, "c")
    assert "c" not in roster()


# --- The study -----------------------------------------------------------------------------------


def test_a_study_changed_while_the_server_runs_is_refused(folder, toy_study):
    folder.root.mkdir()
    study = toy_study()
    table = study.model_dump(mode="json", exclude_none=True)
    folder.study.write_text(tomli_w.dumps(table | {"study": {"name": "other"}}))
    with pytest.raises(ConfigurationError, match="was changed while the server ran"):
        conduct(folder, Connected(), study.sha256)


# --- How a run ended -----------------------------------------------------------------------------


def outcome_of(path):
    return json.loads(path.read_text())


def test_a_run_that_ends_well_says_so(tmp_path):
    path = tmp_path / "run" / "outcome.json"
    with leaving_outcome(path, 7):
        pass
    told = {"run_id": 7, "ok": True, "kind": None, "error": None, "exit_code": 0}
    assert outcome_of(path) == told


@pytest.mark.parametrize(
    ("error", "code"), [(FederationError("below quorum"), 6), (KeyError("fault"), 1)]
)
def test_an_error_is_left_with_its_kind_and_still_fails_the_run(tmp_path, error, code):
    path = tmp_path / "outcome.json"
    with pytest.raises(type(error)), leaving_outcome(path, 7):
        raise error
    told = outcome_of(path)
    assert (told["ok"], told["kind"], told["exit_code"]) == (False, type(error).__name__, code)
    assert told["error"] == str(error)


def test_a_run_that_is_ended_from_outside_leaves_none(tmp_path):
    path = tmp_path / "outcome.json"
    with pytest.raises(SystemExit), leaving_outcome(path, 7):
        raise SystemExit(1)
    assert not path.exists()


def test_on_a_full_disk_the_error_that_matters_is_the_first(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="state"), leaving_outcome(blocked / "outcome.json", 7):
        raise StorageError("state: could not be written")


def test_what_is_logged_is_kept_with_its_time_in_one_file(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "flwr")  # another test of the process may have silenced it
    monkeypatch.setattr(logging.getLogger("flwr"), "disabled", False)
    path = tmp_path / "logs" / "serverapp.log"
    with logging_to(path):
        logging.getLogger("hica.server").info("a step")
        logging.getLogger("flwr").warning("a word of Flower's")
    logging.getLogger("hica.server").warning("after the run")
    lines = path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "INFO hica.server: a step",
        "WARNING flwr: a word of Flower's",
    ]


def test_the_keys_of_the_start_kits_are_needed_for_secure_aggregation_alone(tmp_path, make_study):
    folder = Folder(tmp_path)
    assert registered_keys(folder, make_study()) is None
    secure = make_study("privacy.secure_aggregation=true")
    with pytest.raises(ConfigurationError, match=r"keys\.json: missing.*hica-server provision"):
        registered_keys(folder, secure)
    roster = {"north": generate(tmp_path / "north")}
    folder.roster.parent.mkdir()
    folder.roster.write_bytes(roster_json(roster))
    assert registered_keys(folder, secure) == roster
