"""Attacks on a coordinator and its hospitals, all of them on one running federation.

`south` lies in all rounds of alignment but the last. Strangers ask the public port while a round
is held open. In the end the coordinator itself changes the study that the sites have approved.
"""

import json
import math
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from tests.deployment.conftest import SCENARIO, Federation

from hica.deployment.keys import generate, public_path, read_private
from hica.errors import FederationError
from hica.study import load_study
from hica_client.audit import verify
from hica_client.result import result_file
from hica_server.settings import Folder, load_settings
from hica_server.superlink.control import Control
from hica_simulations.run import Place
from hica_simulations.scenario import load_scenario

# One worker runs them all: they share the federation, and come in the order of its life.
pytestmark = [pytest.mark.deployment, pytest.mark.matrix]

COORDINATOR = "coordinator"
EVIL = Path(__file__).parent / "evil"
REFUSALS = {
    "large_array": "has shape (2097152,), expected",
    "large_header": "at most 4000000 are read",
    "no_json": "header is not JSON",
    "no_text": "half of a surrogate pair",
    "pickle": "has type object, only plain numbers are read",
    "forged_parcel": "arrays missing",
    "nan": "holds NaN or infinite values",
    "dtype": "has type float64, expected float32",
    "array_name": "not asked for ['shared.other']",
    "site_name": "answers as 'north'",
    "unreadable": "the answer cannot be read: DecodeError",
    "endless": "the answer has more than",
    "long_reason": "failed at the site: xxx",
}
"""How each attack of `evil/attacks.py` is answered, in the order of the rounds."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory, cache) -> Iterator[Federation]:
    """Runs, and holds the first round of alignment open."""
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "scenario.toml").write_text(SCENARIO)
    rounds = f"alignment.rounds={len(REFUSALS) + 1}"
    scenario = load_scenario(folder / "scenario.toml", [rounds, "federation.quorum=1"])
    made = Federation(scenario, Place(folder, folder / "federation", cache, "cpu"))
    try:
        made.prepare()
        made.start("north")
        made.start("south", {"PYTHONPATH": str(EVIL), "HICA_TEST_ATTACKS": " ".join(REFUSALS)})
        made.start(COORDINATOR)
        made.hold("south", 1, len(REFUSALS) + 1)
        yield made
    finally:
        made.kill_all()


@pytest.fixture(scope="module")
def control(federation) -> Iterator[Control]:
    """The coordinator's own, on loopback."""
    with Control(federation.folder, superlink_port(federation)) as made:
        yield made


@pytest.fixture(scope="module")
def run(control) -> int:
    """Flower's number of the run under way."""
    (number,) = control.unfinished_runs()
    return number


def superlink_port(federation: Federation) -> int:
    return json.loads(federation.folder.processes.read_text())["superlink"]["port"]


def public_port(federation: Federation) -> int:
    return load_settings(federation.folder.root).server.port


@pytest.fixture
def browse(federation) -> Iterator[Callable[[int], httpx.Client]]:
    """`browse(port)` → a browser that trusts the coordinator's certificate."""
    trust = ssl.create_default_context(cafile=federation.folder.ca_certificate)
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(
            httpx.Client(base_url=f"https://localhost:{port}", verify=trust, trust_env=False)
        )


# --- Strangers -----------------------------------------------------------------------------------


def test_only_what_sites_need_is_there_from_outside(federation, browse):
    inside, outside = browse(superlink_port(federation)), browse(public_port(federation))
    known = inside.get("/openapi.json").json()["paths"]
    hidden = [path for path in known if path != "/health" and not path.startswith("/v1/fleet/")]
    assert {path.split("/")[2] for path in hidden} == {"control", "runtime"}
    for path in (*hidden, "/docs", "/openapi.json", "/redoc"):
        for method in ("GET", "POST"):
            assert outside.request(method, path).status_code == 404, path
    assert outside.get("/health").status_code == 200


@pytest.fixture
def stranger(federation, tmp_path) -> Iterator[Control]:
    """A client of the Control API that has what is in every start kit, the CA's certificate."""
    folder = Folder(tmp_path)
    folder.ca_certificate.parent.mkdir()
    kit = federation.site("north").federation.kit
    folder.ca_certificate.write_bytes((kit / "ca.crt").read_bytes())
    with Control(folder, public_port(federation)) as made:
        yield made


@pytest.mark.parametrize(
    "ask",
    [
        lambda stranger, run: stranger.nodes(),
        lambda stranger, run: stranger.unfinished_runs(),
        lambda stranger, run: stranger.run_status(run),
        lambda stranger, run: stranger.start_run("0" * 64),
        lambda stranger, run: stranger.stop_run(run),
        lambda stranger, run: stranger.register("west", b"key"),
        lambda stranger, run: stranger.unregister(1),
    ],
    ids=["list nodes", "list runs", "see a run", "start", "stop", "register", "unregister"],
)
def test_with_the_certificate_of_the_authority_alone_nothing_can_be_done(
    stranger, control, run, ask
):
    with pytest.raises(FederationError, match="no such path"):
        ask(stranger, run)
    assert control.unfinished_runs() == [run]
    assert sorted(node.name for node in control.nodes() if node.online) == ["north", "south"]


# --- Keys and signatures -------------------------------------------------------------------------


class Tap:
    """Keeps what a client sends."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def intercept(self, context, call_next):
        self.requests.append(context.request)
        return call_next(context)


class Outsider:
    """A key, and Flower's own client that signs with it."""

    def __init__(self, federation: Federation, key: Path, node: int) -> None:
        generate(key)
        self.key, self.node = key, node
        self._address = f"localhost:{public_port(federation)}"
        self._ca = federation.folder.ca_certificate.read_bytes()

    def ask(self, run: int, *further: object) -> int:
        """Ask what a SuperNode asks about a run; returns the run's number in the answer."""
        request = GetRunRequest(node=Node(node_id=self.node), run_id=run)
        with self._client(*further) as client:
            return client.GetRun(request).run.run_id

    def announce(self, run: int, **told: object) -> None:
        """Announce a message, as a SuperNode does with an answer; `told` is its metadata."""
        whole = {"run_id": run, "message_id": "a" * 64, "created_at": time.time(), "ttl": 60.0}
        metadata = Metadata(message_type="train.align", **{**whole, **told})
        request = PushMessagesRequest(
            node=Node(node_id=self.node),
            messages_list=[Message(metadata=metadata, content=RecordDict())],
            message_object_trees=[ObjectTree(object_id="a" * 64)],
        )
        with self._client() as client:
            client.PushMessages(request)

    def _client(self, *further: object) -> FleetHttpClient:
        key = read_private(self.key)
        chain = [NodeAuthHttpInterceptor(key, key.public_key()), *further]
        return FleetHttpClient.from_server_address(self._address, False, self._ca, chain)


@contextmanager
def unauthorised(words: str, status: int = 401) -> Iterator[None]:
    """What is asked in here is answered with this status and these words."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        yield
    answer = error.value.response
    assert (answer.status_code, words in answer.text) == (status, True), answer.text


@pytest.fixture(scope="module")
def west(federation, control, tmp_path_factory) -> Outsider:
    """A site that is enrolled while the run is under way; its SuperNode is never started."""
    made = Outsider(federation, tmp_path_factory.mktemp("west") / "site", 0)
    folder, public = federation.folder.root, public_path(made.key)
    federation.command("hica-server", "enroll", folder, public, "--name", "west")
    federation.wait_until(lambda: "west" in nodes(control), "the registration of west")
    made.node = nodes(control)["west"]
    return made


def nodes(control: Control) -> dict[str, int]:
    return {node.name: node.id for node in control.nodes()}


def test_a_key_that_is_not_enrolled_is_refused(federation, control, run, tmp_path):
    unknown = Outsider(federation, tmp_path / "site", nodes(control)["north"])
    with unauthorised("not the key of an enrolled site"):
        unknown.ask(run)


def test_a_site_cannot_speak_for_another(west, control, run, monkeypatch):
    assert west.ask(run) == run
    monkeypatch.setattr(west, "node", nodes(control)["north"])
    with unauthorised("Invalid SuperNode authentication"):
        west.ask(run)


def test_a_site_cannot_send_to_another_in_the_coordinator_s_name(federation, west, control, run):
    as_coordinator = {"src_node_id": SUPERLINK_NODE_ID}
    for node in (nodes(control)["north"], west.node):
        with unauthorised("west: sends a message in the name of another", 403):
            west.announce(run, **as_coordinator, dst_node_id=node, ttl=3.2e8)
    answer = {"src_node_id": west.node, "dst_node_id": SUPERLINK_NODE_ID}
    with unauthorised("west: sends a message that answers no request", 403):
        west.announce(run, **answer)
    west.announce(run, **answer, reply_to_message_id="b" * 64)  # the SuperLink asked no such thing
    log = (federation.folder.logs / "superlink.log").read_text()
    assert "The message it replies to with message_id " + "b" * 64 + " does not exist" in log


def test_a_request_that_was_recorded_is_refused_when_it_is_sent_again(
    federation, browse, west, run
):
    tap = Tap()
    assert west.ask(run, tap) == run
    answer = browse(public_port(federation)).send(tap.requests[0])
    assert answer.status_code == 401
    assert answer.json() == {"detail": "west: the signature was used before"}
    assert west.ask(run) == run


def test_a_signature_ten_minutes_old_is_refused(west, run, monkeypatch):
    past = datetime.now(UTC) - timedelta(minutes=10)
    with monkeypatch.context() as patched:
        patched.setattr("flwr.supernode.node_auth_http_interceptor.now", lambda: past)
        with unauthorised("its clock is -600 s off"):
            west.ask(run)
    assert west.ask(run) == run


def test_a_revoked_key_is_refused_from_the_next_request_on(federation, control, west, run):
    assert west.ask(run) == run
    federation.command("hica-server", "revoke", federation.folder.root, "west")
    with unauthorised("not the key of an enrolled site"):
        west.ask(run)
    federation.wait_until(lambda: "west" not in nodes(control), "the end of west's registration")


# --- A site that lies ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(federation) -> dict:
    """Of the whole run; the tests above have done it no harm."""
    federation.release()
    return federation.finish()


@pytest.fixture(scope="module")
def alignment(result) -> list[dict]:
    """What came of each round."""
    return [entry for entry in result["rounds"] if entry["stage"] == "alignment"]


@pytest.mark.parametrize(("round_", "attack"), enumerate(REFUSALS))
def test_a_bad_update_is_refused_by_name_and_the_round_goes_on(alignment, round_, attack):
    entry = alignment[round_]
    assert (entry["participants"], entry["missing"]) == (["north"], [])
    assert list(entry["refused"]) == ["south"]
    assert REFUSALS[attack] in entry["refused"]["south"]


def test_no_more_is_kept_of_a_reason_than_a_report_can_hold(alignment):
    assert max(len(entry["refused"].get("south", "")) for entry in alignment) == 1000


def test_after_all_that_an_honest_update_is_taken_and_the_result_is_sound(alignment, result):
    assert alignment[-1]["participants"] == ["north", "south"]
    assert list(result["per_site"]) == ["north", "south"]
    assert all(math.isfinite(entry["loss"]) for entry in alignment)
    assert 0 <= result["final"]["accuracy"]["value"] <= 1


# --- A coordinator that changes its mind ---------------------------------------------------------


def test_a_study_that_is_changed_after_its_approval_is_refused_by_every_site(federation, result):
    folder = federation.folder
    folder.run.rename(folder.root / "finished")
    folder.study.write_text(folder.study.read_text().replace("shots = 3", "shots = 4"))
    changed = load_study(folder.study).sha256
    assert changed != result["study_sha256"]
    federation.command("hica-server", "provision", folder.root, *federation.names)
    for name in federation.names:  # they left when they were told the end; these were away then
        assert federation.wait_for_exit(name) == 0
        result_file(federation.site(name), result["study_sha256"]).unlink()
    federation.start_all()
    assert federation.wait_for_exit() == 6
    remedy = f"hica-client approve SITE {changed[:12]}"
    for name in federation.names:
        site = federation.site(name)
        why = f"{name}: failed at the site: PolicyError: study {changed[:12]} is not approved"
        assert why in federation.said() and remedy in federation.said()
        last = verify(site.audit_log)[-1]
        assert (last["decision"], last["study"]) == ("refused", changed)
        assert not (site.data.state / changed[:16]).exists()  # no data was touched for it
