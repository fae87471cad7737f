import json
import os
from datetime import UTC, datetime

import pytest

from hica.deployment.lockfile import hold
from hica_client.approval import approve
from hica_client.audit import Event, append
from hica_client.cli import main
from hica_client.link import Link
from hica_client.operation import link_file, lock_file, processes_file
from hica_client.result import result_file
from hica_client.site import load_site
from hica_client.status import describe, status


@pytest.fixture
def site(enrolled_site):
    return load_site(enrolled_site)


@pytest.fixture
def running(site):
    """A client of the site that is connected and whose runner has been restarted."""
    with hold(lock_file(site), "a test"):
        services = {
            "supernode": {"pid": 11, "started": "2026-03-01T10:00:00+00:00", "restarts": 0},
            "runner": {"pid": None, "started": None, "restarts": 2},
        }
        processes_file(site).write_text(json.dumps(services))
        link = Link(link_file(site), "coordinator.example:8443")
        link.heard("SuperNode ID: 7")
        yield link


def words(site_file) -> dict[str, str]:
    return dict(describe(status(site_file)))


def test_of_a_site_that_never_ran(enrolled_site):
    found = status(enrolled_site)
    assert (found["site"], found["running"], found["pid"]) == ("north", False, None)
    assert (found["connected"], found["node"], found["services"]) == (False, None, {})
    assert (found["messages"], found["last_message"], found["approved"]) == (0, None, [])
    assert words(enrolled_site) == {
        "site": "north",
        "client": "not running",
        "coordinator": "coordinator.example:8443",
        "approved": "no study",
    }


def test_what_joining_gave_is_told_once_that_is_known(enrolled_site, site, toy_study):
    assert status(enrolled_site)["gain"] is None
    metric = {"value": 0.5, "low": 0.5, "high": 0.5}
    compared = {"accuracy": metric, "balanced_accuracy": metric, "auroc": None}
    gain = dict.fromkeys(("alone", "personal", "difference"), compared)
    path = result_file(site, toy_study().sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    for table, told in (({"gain": gain}, True), ({"gain": None}, False), ([], False)):
        path.write_text(json.dumps(table))
        assert ("joining gave" in words(enrolled_site)) == told
    path.write_text(json.dumps({"gain": gain}))
    assert words(enrolled_site)["joining gave"].startswith("accuracy 50.0 → 50.0 (+50.0 [+50.0, ")


def test_of_a_site_without_a_kit(draw_site):
    assert words(draw_site("north"))["coordinator"] == "no start kit yet"


def test_of_a_site_that_is_connected(enrolled_site, running):
    found = status(enrolled_site)
    assert (found["running"], found["pid"]) == (True, os.getpid())
    assert (found["connected"], found["node"], found["trouble"]) == (True, 7, "")
    said = words(enrolled_site)
    assert said["client"] == f"running (process {os.getpid()})"
    assert said["supernode"] == "process 11, restarted 0 times"
    assert said["runner"] == "about to be started again, restarted 2 times"
    assert said["link"] == f"connected since {running.state.since}"


def test_of_a_site_that_is_not_connected(enrolled_site, running):
    running.ended(network="the certificate has expired")
    assert status(enrolled_site)["trouble"] == "the certificate has expired"
    assert words(enrolled_site)["link"] == "not connected: the certificate has expired"
    running.closed()
    assert words(enrolled_site)["link"] == "not connected"


def test_what_a_killed_client_has_left_is_not_taken_for_a_connection(enrolled_site, site):
    Link(link_file(site), "coordinator.example:8443").heard("SuperNode ID: 7")
    found = status(enrolled_site)
    assert (found["running"], found["connected"], found["node"]) == (False, False, 7)
    assert "link" not in words(enrolled_site)


def test_a_client_that_has_only_just_started_has_no_services_yet(enrolled_site, site):
    with hold(lock_file(site), "a test"):
        assert status(enrolled_site)["services"] == {}


def test_the_last_message_and_the_approved_studies(enrolled_site, site, toy_study):
    when = datetime(2026, 3, 1, tzinfo=UTC)
    approve(site, toy_study(), "dr-grey", when)
    event = Event("message", "refused", "not approved", "train.align", 3, bytes=12)
    append(site.audit_log, Event("message", "sent", kind="query.capabilities"))
    append(site.audit_log, event)
    found = status(enrolled_site)
    assert found["messages"] == 2
    last = found["last_message"]
    assert (last["kind"], last["round"], last["decision"]) == ("train.align", 4, "refused")
    assert (last["reason"], last["bytes"]) == ("not approved", 12)
    sha = toy_study().sha256
    assert found["approved"] == [{"study": sha, "name": "toy", "user": "dr-grey"}]
    said = words(enrolled_site)
    assert said["last message"] == f"{last['time']}: train.align, round 4, refused (not approved)"
    assert said["approved"] == f"toy ({sha[:12]}), by dr-grey"


def test_the_command_prints_words_or_json(enrolled_site, running, capsys):
    for arguments in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["status", str(enrolled_site), *arguments])
        assert end.value.code == 0
        out = capsys.readouterr().out
        if arguments:
            assert json.loads(out)["node"] == 7
        else:
            assert "running (process" in out
            assert "connected since" in out
