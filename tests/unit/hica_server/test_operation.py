import json
import os
import signal
import sys

import pytest
import tomli_w

from hica.deployment.keys import generate, public_path
from hica.deployment.lockfile import hold
from hica.errors import ConfigurationError, FederationError
from hica.storage import write_atomically
from hica.wire.checkpoint import write_json
from hica_server import operation
from hica_server.enrolment import enroll
from hica_server.provision import make_authority, make_certificate, provision
from hica_server.settings import Folder, load_settings


@pytest.fixture
def study(toy_study):
    return toy_study()


@pytest.fixture
def folder(tmp_path, study, monkeypatch):
    """A coordinator's folder, ready to run."""
    monkeypatch.setenv("HICA_FOLDER", "")  # what `run` sets is undone after the test
    for name in (
        "HICA_TELL_SECONDS",
        "PATH",
        "NO_PROXY",
        "no_proxy",
        "FLWR_HOME",
        "FLWR_LOG_LEVEL",
    ):
        monkeypatch.setenv(name, "")
    folder = Folder(tmp_path / "server")
    folder.root.mkdir()
    table = study.model_dump(mode="json", exclude_none=True)
    folder.study.write_text(tomli_w.dumps(table))
    make_authority(folder)
    make_certificate(folder, "localhost", 1)
    write_atomically(folder.signing_key, b"key")
    return folder


def test_without_the_signing_key_it_does_not_start(folder, nothing_is_started):
    folder.signing_key.unlink()
    with pytest.raises(ConfigurationError, match=r"signing\.key: .*new start kit for every hosp"):
        operation.run(folder.root)


@pytest.fixture
def nothing_is_started(monkeypatch):
    """Fails where a test would start real services."""

    def started(*_):
        raise AssertionError("services were started")

    monkeypatch.setattr(operation, "_serve", started)


def test_without_certificates_it_says_how_to_make_them(folder, nothing_is_started):
    folder.certificate.unlink()
    with pytest.raises(ConfigurationError, match=r"server\.crt: no such file.*provision"):
        operation.run(folder.root)


def test_with_kits_of_another_study_it_does_not_start(
    folder, toy_study, nothing_is_started, tmp_path
):
    generate(tmp_path / "H1")
    enroll(folder, "H1", public_path(tmp_path / "H1"))
    folder.signing_key.unlink()
    provision(folder, toy_study("alignment.shots=5"), load_settings(folder.root), ["H1"])
    with pytest.raises(ConfigurationError, match=r"H1\.zip: study_sha256 is .*, study\.toml has"):
        operation.run(folder.root)


def test_with_an_expired_certificate_it_does_not_start(folder, nothing_is_started):
    make_certificate(folder, "localhost", -1)
    with pytest.raises(ConfigurationError, match=r"server\.crt: expired on .* --renew"):
        operation.run(folder.root)


def test_with_another_flower_it_does_not_start(folder, nothing_is_started, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.42.0")
    with pytest.raises(ConfigurationError, match=r"Flower 1\.42\.0 is installed"):
        operation.run(folder.root)


def test_two_servers_of_one_folder_are_refused(folder, nothing_is_started):
    with (
        hold(folder.lock, "another"),
        pytest.raises(FederationError, match=r"the coordinator of .* is running already: pro"),
    ):
        operation.run(folder.root)


def write_result(folder, study):
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    final = {"accuracy": interval, "balanced_accuracy": interval, "auroc": interval}
    result = {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "seed": 0,
        "sites": {},
        "rounds": [],
        "final": final,
        "per_site": {},
        "baselines": {},
        "versions": {},
    }
    write_json(folder.run / "result.json", result)
    write_json(folder.run / "study.json", study.model_dump(mode="json"))


def test_a_finished_study_is_not_run_again_and_its_report_is_there(
    folder, study, nothing_is_started
):
    write_result(folder, study)
    assert operation.run(folder.root) is None
    assert study.study.name in (folder.run / "report.html").read_text()


def test_a_result_that_is_damaged_says_how_it_is_written_anew(folder, study, nothing_is_started):
    write_result(folder, study)
    (folder.run / "result.json").write_text("[]")
    with pytest.raises(ConfigurationError, match=r"result\.json: cannot be read .* delete it"):
        operation.run(folder.root)


def test_a_finished_study_is_served_again_to_tell_who_was_away(folder, study, monkeypatch):
    write_result(folder, study)
    seconds = []
    monkeypatch.setattr(
        operation, "_serve", lambda *_: seconds.append(os.environ["HICA_TELL_SECONDS"])
    )
    operation.run(folder.root, 90.0)
    assert seconds == ["90.0"]
    (folder.run / "result.json").unlink()
    monkeypatch.setattr(
        operation, "_serve", lambda *_: seconds.append(os.environ["HICA_TELL_SECONDS"]) or 15
    )
    operation.run(folder.root)
    assert seconds == ["90.0", "30.0"]


def test_the_result_of_another_study_does_not_count(folder, toy_study, monkeypatch):
    write_result(folder, toy_study("study.seed=1"))
    monkeypatch.setattr(operation, "_serve", lambda *_: signal.SIGTERM)
    assert operation.run(folder.root) == signal.SIGTERM
    assert not (folder.run / "report.html").exists()


def test_the_services_are_kept_from_the_outside_but_for_the_gateway(folder):
    folder.settings.write_text("[server]\nport = 9443\n")
    settings = load_settings(folder.root)
    superlink, superexec, gateway = operation._services(folder, settings, 8000)
    assert [superlink.port, superexec.port, gateway.port] == [8000, None, 9443]
    assert superlink.command[superlink.command.index("--host") + 1] == "127.0.0.1"
    assert gateway.command[-3:] == ["hica_server.gateway", str(folder.root), "8000"]
    assert {service.log.parent for service in (superlink, superexec, gateway)} == {folder.logs}


# --- The loop ------------------------------------------------------------------------------------


class FakeOrchestrator:
    """Ends the study at the given call, or never."""

    last = None

    def __init__(self, *_):
        FakeOrchestrator.last = self
        self.calls, self.stopped = 0, False

    def advance(self):
        self.calls += 1
        return self.calls == FakeOrchestrator.ends

    def stop(self):
        self.stopped = True


@pytest.fixture
def loop(folder, study, monkeypatch):
    """The real loop, supervisor and all, around one service that sleeps."""
    folder.settings.write_text("[ports]\nmetrics = 0\n")
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    service = operation.Service("sleeper", sleeper, {}, folder.logs / "sleeper.log")
    monkeypatch.setattr(operation, "_services", lambda *_: [service])
    monkeypatch.setattr(operation, "Orchestrator", FakeOrchestrator)
    monkeypatch.setattr(operation, "TICK_SECONDS", 0.01)

    def loop(ends):
        FakeOrchestrator.ends = ends
        return operation._serve(folder, study)

    return loop


def service_of(folder):
    return json.loads(folder.processes.read_text())["sleeper"]["pid"]


def test_at_the_end_of_the_study_the_services_end_too(loop, folder):
    assert loop(ends=3) is None
    assert service_of(folder) is None
    assert not FakeOrchestrator.last.stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_order(loop, folder, monkeypatch, number):
    def signal_after_a_tick(self):
        signal.raise_signal(number)
        return False

    monkeypatch.setattr(FakeOrchestrator, "advance", signal_after_a_tick)
    assert loop(ends=None) == number
    assert FakeOrchestrator.last.stopped
    assert service_of(folder) is None


def test_the_gateway_stays_closed_until_the_superlink_knows_the_sites(loop, folder, monkeypatch):
    folder.service.mkdir(parents=True)
    folder.connected.write_text("{}")  # of the server before
    seen = []

    def look(self):
        seen.append(folder.connected.exists())
        return True

    monkeypatch.setattr(FakeOrchestrator, "advance", look)
    loop(ends=None)
    assert seen == [False]


def test_every_start_has_a_secret_of_its_own_that_nobody_else_can_read(loop, folder):
    secrets = []
    for _ in range(2):
        loop(ends=1)
        secrets.append(folder.secret.read_bytes())
        assert folder.secret.stat().st_mode & 0o077 == 0
    assert len(secrets[0]) == 64
    assert secrets[0] != secrets[1]
