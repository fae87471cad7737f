"""D: nobody speaks for another (number 12)."""

import asyncio
import json
import time
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from tests.coordinator import KEY, signed

from hica.deployment import keys
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.wire.messages import Request
from hica.wire.records import encode_request
from hica_client import guard as guard_module
from hica_client.audit import verify
from hica_client.guard import Guard
from hica_client.site import load_site
from hica_server.admission import Admission
from hica_server.asked import note_asked
from hica_server.enrolment import enroll
from hica_server.proxy import Proxy
from hica_server.settings import Folder
from hica_server.traffic import Traffic

NORTH, SOUTH, COORDINATOR = 7, 8, 1
RUN = 11


# --- At the site ---------------------------------------------------------------------------------


def asked(study, node=NORTH, run=RUN, kind=ALIGNMENT.kind):
    """What the coordinator asks of a node, unsigned."""
    arrays = {"centre": np.zeros(2, np.float32)}
    content = encode_request(Request(kind, study, 3, {}, arrays))
    told = Metadata(run, "", COORDINATOR, node, "", "3", time.time(), 60.0, kind)
    return make_message(metadata=told, content=content)


def redirected(message, **told):
    """The signed content in a message that says something else of itself."""
    metadata = Metadata(RUN, "", COORDINATOR, NORTH, "", "3", time.time(), 60.0, ALIGNMENT.kind)
    metadata.__dict__.update({f"_{name}": value for name, value in told.items()})
    return make_message(metadata=metadata, content=message.content)


def altered(message):
    """One number of an array is another."""
    centre = Array(np.array([0, 1e-7], np.float32))
    content = RecordDict({**message.content, "arrays": ArrayRecord({"centre": centre})})
    return make_message(metadata=message.metadata, content=content)


def reworded(message):
    """The study of the header is asked for in another round."""
    content = RecordDict(dict(message.content))
    header = json.loads(content["message"]["header"])
    content["message"]["header"] = json.dumps(header | {"round": 4})
    return make_message(metadata=message.metadata, content=content)


ATTACKS = {
    "not signed": asked,
    "by another hospital": lambda s: signed(asked(s), ec.generate_private_key(ec.SECP384R1())),
    "for another site": lambda s: redirected(signed(asked(s, node=SOUTH))),
    "in another run": lambda s: redirected(signed(asked(s, run=12))),
    "of another round": lambda s: redirected(signed(asked(s)), group_id="4"),
    "of another kind": lambda s: redirected(signed(asked(s, kind=CENTRE.kind))),
    "altered array": lambda s: altered(signed(asked(s))),
    "altered header": lambda s: reworded(signed(asked(s))),
}


@pytest.fixture
def site(draw_site, toy_study, lay_kit):
    site_file = draw_site("north")
    lay_kit(site_file, toy_study())
    return load_site(site_file)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_12_a_request_in_the_coordinator_s_name_is_refused_before_it_is_read(
    site, toy_study, monkeypatch, attack
):
    """A hospital with a key of its own asks another one in the coordinator's name."""
    read = []
    monkeypatch.setattr(guard_module, "_read", read.append)
    context = Context(RUN, NORTH, {}, RecordDict(), {"study": toy_study().sha256})
    answer = Guard(site, KEY.public_key()).answer(attack(toy_study()), context, fail)
    assert read == []
    assert answer.error.reason.startswith("north: MessageError: the request is not signed")
    assert "get a new start kit" in answer.error.reason
    (entry,) = verify(site.audit_log)
    assert (entry["decision"], entry["reason"]) == ("refused", answer.error.reason[7:])


def test_12_what_the_coordinator_signed_is_read(site, toy_study):
    """The same request as it was sent: the guard goes on to the approval, which is missing."""
    context = Context(RUN, NORTH, {}, RecordDict(), {"study": toy_study().sha256})
    answer = Guard(site, KEY.public_key()).answer(signed(asked(toy_study())), context, fail)
    assert not answer.has_error()
    (entry,) = verify(site.audit_log)
    assert "is not approved at this site" in entry["reason"]


def fail(message: Message, context: Context) -> Message:
    raise AssertionError("the app was called")


# --- At the gateway ------------------------------------------------------------------------------

TEN_YEARS = 10 * 365 * 86400.0


@dataclass
class Gateway:
    """The proxy before a SuperLink that stores everything, and one hospital's key."""

    proxy: Proxy
    key: ec.EllipticCurvePrivateKey
    stored: list[bytes]

    def post(self, path: str, body: bytes) -> tuple[int, str]:
        """Status and words of the answer to a request that the hospital signs."""
        moment = datetime.now(UTC).isoformat().encode()
        signature = self.key.sign(moment, ec.ECDSA(hashes.SHA256()))
        pem = keys.public_key(self.key.public_key()).pem
        headers = [
            (b"flwr-public-key", b64encode(pem)),
            (b"flwr-timestamp", moment),
            (b"flwr-signature", b64encode(signature)),
        ]
        scope = {"type": "http", "method": "POST", "raw_path": path.encode(), "query_string": b""}
        sent: list[dict] = []

        async def receive() -> dict:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: dict) -> None:
            sent.append(dict(event))

        asyncio.run(
            self.proxy(scope | {"headers": headers, "client": ("192.0.2.7", 1)}, receive, send)
        )
        return sent[0]["status"], b"".join(event["body"] for event in sent[1:]).decode()


@pytest.fixture
def gateway(tmp_path):
    folder = Folder(tmp_path / "study")
    keys.generate(tmp_path / "north")
    enroll(folder, "north", keys.public_path(tmp_path / "north"))
    stored: list[bytes] = []

    async def superlink(request: httpx.Request) -> httpx.Response:
        stored.append(await request.aread())
        return httpx.Response(200, stream=httpx.ByteStream(b"stored"))

    def client() -> httpx.AsyncClient:
        transport = httpx.MockTransport(superlink)
        return httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8000")

    traffic = Traffic(folder.asked, 10_000)
    proxy = Proxy(Admission(folder), client(), client(), 2**20, traffic)
    return Gateway(proxy, keys.read_private(tmp_path / "north"), stored)


def announced(**told):
    """As north announces an answer to the coordinator, changed."""
    honest = {
        "run_id": RUN,
        "message_id": "a" * 64,
        "src_node_id": NORTH,
        "dst_node_id": COORDINATOR,
        "reply_to_message_id": "b" * 64,
        "ttl": 43200.0,
        "created_at": time.time(),
        "message_type": ALIGNMENT.kind,
    }
    return PushMessagesRequest(
        node=Node(node_id=NORTH),
        messages_list=[ProtoMessage(metadata=ProtoMetadata(**{**honest, **told}))],
        message_object_trees=[ObjectTree(object_id="a" * 64)],
    ).SerializeToString()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"src_node_id": COORDINATOR, "dst_node_id": SOUTH, "reply_to_message_id": ""},
            "sends a message in the name of another",
        ),
        (
            {"src_node_id": COORDINATOR, "dst_node_id": NORTH, "reply_to_message_id": ""}
            | {"ttl": TEN_YEARS},
            "sends a message in the name of another",
        ),
        ({"src_node_id": SOUTH}, "sends a message in the name of another"),
        ({"dst_node_id": SOUTH}, "sends a message to another than the coordinator"),
        ({"dst_node_id": NORTH}, "sends a message to another than the coordinator"),
        ({"reply_to_message_id": ""}, "sends a message that answers no request"),
        ({"ttl": TEN_YEARS}, "sends a message that lives longer than any request"),
    ],
    ids=["another", "itself", "as another", "reply to another", "to itself", "nothing", "ttl"],
)
def test_12_only_answers_to_the_coordinator_pass_the_gateway(gateway, caplog, told, words):
    """A hospital's own key, and messages that Flower would hand out or keep for ten years."""
    assert gateway.post("/v1/fleet/push-messages", announced())[0] == 200
    gateway.stored.clear()
    status, said = gateway.post("/v1/fleet/push-messages", announced(**told))
    assert (status, json.loads(said)["detail"]) == (403, f"north: {words}")
    assert gateway.stored == []
    assert f"403 north: {words}" in caplog.text


def test_12_a_hospital_cannot_fill_the_coordinator_s_disk(gateway, tmp_path):
    """Objects without end; what the coordinator asks for is let in, however much it is."""
    statuses = [gateway.post("/v1/fleet/push-object", b"x" * 4000)[0] for _ in range(4)]
    assert statuses == [200, 200, 413, 413]
    note_asked(Folder(tmp_path / "study").asked, {"north": 1_000_000})
    assert gateway.post("/v1/fleet/push-object", b"x" * 900_000)[0] == 200
    status, said = gateway.post("/v1/fleet/push-object", b"x" * 900_000)
    assert status == 413
    assert "limits.unasked_bytes" in said
