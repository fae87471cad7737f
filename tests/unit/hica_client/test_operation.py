"""What `hica-client run` asks for before it starts; what it then does is in tests/deployment."""

import os
import signal
import subprocess
from datetime import UTC, datetime

import pytest

from hica.deployment.lockfile import hold
from hica.deployment.supervision import free_port
from hica.errors import ConfigurationError, DataError, FederationError
from hica.wire.checkpoint import write_json
from hica_client import operation
from hica_client.approval import approve
from hica_client.audit import Event, append
from hica_client.flower_runner import TASK_LOST
from hica_client.link import Link
from hica_client.operation import Client, admitted, environment, link_file, lock_file, run
from hica_client.result import result_file
from hica_client.site import load_site

from .tls import Authority, serving


@pytest.fixture
def approved_site(enrolled_site, toy_study):
    approve(load_site(enrolled_site), toy_study(), "dr-grey", datetime(2026, 3, 1, tzinfo=UTC))
    return enrolled_site


def admit(site_file):
    return admitted(site_file, load_site(site_file))


def test_a_site_with_kit_key_and_approval_is_admitted(approved_site):
    assert admit(approved_site).site == "north"


def test_without_approval_the_command_that_gives_it_is_named(enrolled_site, toy_study):
    sha = toy_study().sha256[:12]
    said = rf"the study 'toy' \({sha}\) is not approved.*hica-client approve {enrolled_site} {sha}"
    with pytest.raises(ConfigurationError, match=said):
        run(enrolled_site)


def test_an_approval_of_another_study_is_none_of_this(enrolled_site, toy_study):
    other = toy_study("alignment.rounds=3")
    approve(load_site(enrolled_site), other, "dr-grey", datetime(2026, 3, 1, tzinfo=UTC))
    with pytest.raises(ConfigurationError, match="not approved"):
        run(enrolled_site)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"site": "south"}, "is the kit of 'south'"),
        ({"bundle_sha256": "0" * 64}, "the coordinator's bundle is 000000000000"),
        ({"flwr": "1.42.0"}, "the coordinator has Flower 1.42.0, this site needs 1.41"),
    ],
)
def test_a_kit_that_does_not_fit_is_named(approved_site, toy_study, unpack_kit, fields, said):
    unpack_kit(approved_site, toy_study(), **fields)
    with pytest.raises(ConfigurationError, match=said):
        run(approved_site)


def test_without_a_key_the_command_that_makes_it_is_named(approved_site):
    (approved_site.parent / "keys" / "site").unlink()
    with pytest.raises(ConfigurationError, match="hica-client keygen"):
        run(approved_site)


def test_without_a_kit_there_is_nobody_to_connect_to(draw_site):
    with pytest.raises(ConfigurationError, match="start kit"):
        run(draw_site("north"))


def test_nothing_is_sent_beside_an_audit_log_that_was_changed(approved_site):
    log = load_site(approved_site).audit_log
    append(log, Event("message", "sent"))
    log.write_text(log.read_text().replace("sent", "lost"))
    with pytest.raises(DataError, match="line 1"):
        run(approved_site)


def test_another_flower_ends_it_before_anything_else(approved_site, monkeypatch):
    def refuse():
        raise ConfigurationError("Flower 1.42.0 is installed here, HiCA needs 1.41")

    monkeypatch.setattr(operation, "require_flower", refuse)
    with pytest.raises(ConfigurationError, match="HiCA needs"):
        run(approved_site)


def test_a_site_runs_once(approved_site):
    lock = lock_file(load_site(approved_site))
    said = f"the client of {approved_site} is running already"
    with hold(lock, "the first"), pytest.raises(FederationError, match=said):
        run(approved_site)


@pytest.fixture
def client(approved_site, toy_study, unpack_kit):
    """A client whose coordinator is away, once connected as node 7; nothing is started."""
    ca = Authority().pem
    kit = unpack_kit(approved_site, toy_study(), ca, address=f"localhost:{free_port()}")
    site = load_site(approved_site)
    Link(link_file(site), kit.address).heard("SuperNode ID: 7")
    return Client(approved_site, site, kit)


@pytest.fixture
def sleeper(client, monkeypatch):
    """A process in the place of the client's SuperNode."""
    with subprocess.Popen(["sleep", "3600"]) as process:
        monkeypatch.setattr(client.supervisor, "pids", lambda: {"supernode": process.pid})
        yield process
        process.kill()


def test_a_node_that_cannot_be_signed_off_keeps_nobody_from_starting(client):
    assert client.link.state.node == 7


def test_the_secret_of_the_runner_is_for_its_owner_only(client):
    secret = client.site.service / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 32


def test_when_the_supernode_ends_the_network_is_looked_at(client):
    client.supernode_ended()
    assert "refuses the connection" in client.link.state.trouble


def test_a_silent_coordinator_is_looked_at_once(client):
    client.explain_silence()
    assert client.link.state.trouble == ""
    client.supervisor._on_line("supernode", "Connection attempt failed, retrying in 1 seconds")
    client.explain_silence()
    assert "refuses the connection" in client.link.state.trouble


def test_a_coordinator_of_another_authority_is_not_started_for(
    approved_site, toy_study, unpack_kit, tmp_path
):
    served = Authority().sign(tmp_path, "127.0.0.1", -1, 30)
    with serving(served) as port:
        unpack_kit(approved_site, toy_study(), address=f"127.0.0.1:{port}")
        with pytest.raises(FederationError, match="not from the kit's authority"):
            run(approved_site)
    assert not lock_file(load_site(approved_site)).exists()


def test_a_dead_runner_takes_the_supernode_along_and_that_is_no_trouble(client, sleeper):
    client.runner_ended(-signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGTERM
    client.supernode_ended()
    assert client.link.state.trouble == ""
    client.supernode_ended()  # by itself, this time
    assert client.link.state.trouble != ""


def test_a_runner_that_left_a_lost_task_leaves_the_new_supernode_alone(client, sleeper):
    client.runner_ended(TASK_LOST)
    assert sleeper.poll() is None


def test_a_runner_that_dies_after_the_supernode_has_nobody_to_take_along(client, monkeypatch):
    monkeypatch.setattr(client.supervisor, "pids", lambda: {"supernode": None})
    client.runner_ended(-signal.SIGKILL)
    client.supernode_ended()
    assert client.link.state.trouble != ""


def test_loopback_goes_past_a_proxy_and_nothing_calls_home(approved_site, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "pacs.hospital")
    found = environment(load_site(approved_site))
    assert found["NO_PROXY"] == found["no_proxy"] == "pacs.hospital,127.0.0.1,localhost"
    assert found["FLWR_LOG_LEVEL"] == "INFO"  # or the link would hear nothing
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    assert environment(load_site(approved_site))["NO_PROXY"] == "127.0.0.1,localhost"


def test_a_message_that_was_received_by_half_is_got_rid_of_with_the_supernode(client, sleeper):
    heard = client.supervisor._on_line
    heard("supernode", "Run ID 7 is not in `RUNNING` status. Ignoring reply message ab.")
    assert sleeper.poll() is None
    heard("supernode", "Run ID 7 is not in `RUNNING` status. Ignoring message ab.")
    assert sleeper.wait() == -signal.SIGTERM
    client.supernode_ended()
    assert client.link.state.trouble == ""


def test_what_the_runner_warns_of_is_passed_on_and_the_rest_left_to_its_log(client, caplog):
    heard = client.supervisor._on_line
    heard("runner", "INFO connected to the SuperNode on 127.0.0.1:9094")
    heard("runner", "WARNING train.align refused: not approved")
    heard("runner", "ERROR fault in the program")
    assert caplog.messages == [
        "runner: train.align refused: not approved",
        "runner: fault in the program",
    ]


# --- The end -------------------------------------------------------------------------------------


@pytest.fixture
def told(client):
    """Has the site told that the study is over."""
    return lambda: tell(client.site, client.kit.study_sha256)


def tell(site, study_sha256):
    for name in ("model.safetensors", "model.json", "result.json"):
        write_json(result_file(site, study_sha256).with_name(name), {})


def heard(client, kind, sent=True):
    client.link.heard(f"INFO :      Sending: {kind} message (ID: 3f2a)")
    if sent:
        client.link.heard("INFO :      Sent successfully")


def test_a_client_is_done_once_it_was_told_and_the_coordinator_has_its_answer(client, told):
    heard(client, "evaluate.result")  # of another study
    assert not client.is_done()
    told()
    assert client.is_done()


def test_a_client_whose_model_was_lost_waits_for_it(client, told, monkeypatch):
    told()
    result_file(client.site, client.kit.study_sha256).with_name("model.safetensors").unlink()
    monkeypatch.setattr(operation, "LINGER_SECONDS", -1.0)
    assert not client.is_done()


def test_an_answer_under_way_is_waited_for_but_not_for_ever(client, told, monkeypatch):
    told()
    heard(client, "evaluate.metrics")
    heard(client, "evaluate.result", sent=False)
    assert not client.is_done()
    later = operation.time.monotonic() + operation.LINGER_SECONDS + 1
    monkeypatch.setattr(operation.time, "monotonic", lambda: later)
    assert client.is_done()


@pytest.mark.parametrize("over", [True, False])
def test_a_study_that_is_over_ends_the_client_with_one_sentence(
    approved_site, toy_study, monkeypatch, capsys, over
):
    class Supervised:
        """In the place of the two processes."""

        def __init__(self, *_, **__):
            self.ticks = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def tick(self):
            self.ticks += 1
            if over:
                tell(load_site(approved_site), toy_study().sha256)
            else:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(operation, "Supervisor", Supervised)
    monkeypatch.setattr(operation, "LINGER_SECONDS", -1.0)
    assert run(approved_site) == 0
    said = f"the study toy is over; your result: hica-client result {approved_site}\n"
    assert capsys.readouterr().out == (said if over else "")
