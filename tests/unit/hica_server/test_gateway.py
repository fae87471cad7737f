"""The gateway as a TLS server on loopback, before a server that stands for the SuperLink."""

import asyncio
import gc
import signal
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse

import httpx
import pytest
import uvicorn

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica_server import gateway, proxy
from hica_server.enrolment import revoke
from hica_server.gateway import collect_often, main, make_proxy, make_server, open_port
from hica_server.provision import provision
from hica_server.settings import Folder, LimitsSection, ServerSection, ServerSettings

LIMIT = 100_000
ASK = "/v1/fleet/get-run"
PATIENT = 60
"""Seconds until a socket that is waited on in vain fails its test."""


class SuperLink:
    """An ASGI app that keeps what it is asked, and answers as its attributes say."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer = b"answer"
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Semaphore(0)
        self.breaks_off = False

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body, more = body + event["body"], event["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((scope["method"], scope["path"], headers, body))
        self.asked.release()
        await asyncio.to_thread(self.may_answer.wait)
        length = str(len(self.answer)).encode()
        start = {"status": 200, "headers": [(b"content-length", length)]}
        await send({"type": "http.response.start", **start})
        half = len(self.answer) // 2 if self.breaks_off else len(self.answer)
        await send(
            {
                "type": "http.response.body",
                "body": self.answer[:half],
                "more_body": self.breaks_off,
            }
        )


@contextmanager
def serving(server: uvicorn.Server, run: Callable[[], Coroutine]) -> Iterator[None]:
    """Run a server in a thread; connections wait in its socket until it is up."""
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def folder(tmp_path, make_study) -> Folder:
    folder = Folder(tmp_path / "study")
    provision(folder, make_study(), ServerSettings(), [])
    return folder


@pytest.fixture
def node(enrol):
    return enrol("H1")


@pytest.fixture
def superlink(folder) -> Iterator[SuperLink]:
    """With attribute `port`."""
    app = SuperLink()
    with socket.create_server(("127.0.0.1", 0)) as port:
        app.port = port.getsockname()[1]
        server = uvicorn.Server(superlink_config(app, folder))
        with serving(server, lambda: server.serve([port])):
            yield app
            app.may_answer.set()


def superlink_config(app: SuperLink, folder: Folder) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ssl_certfile=folder.certificate,
        ssl_keyfile=folder.key,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )


@pytest.fixture
def start(folder, superlink) -> Iterator[Callable[[int], int]]:
    """`start(port of the SuperLink)` → port of a gateway, which ends before `superlink` does."""
    write_atomically(folder.connected, b"{}")  # sites are known to the SuperLink
    with ExitStack() as stack:

        def run(upstream: int, **more: int) -> int:
            limits = LimitsSection.model_construct(request_bytes=LIMIT, **more)
            settings = ServerSettings().model_copy(update={"limits": limits})
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            app = make_proxy(folder, settings, upstream)
            server = make_server(app, folder, limits)
            stack.enter_context(serving(server, lambda: gateway.serve(app, server, port)))
            return port.getsockname()[1]

        yield run


@pytest.fixture
def port(start, superlink) -> int:
    """Of a gateway before `superlink`."""
    return start(superlink.port)


@pytest.fixture
def client(folder, port) -> Iterator[httpx.Client]:
    """A site's, of the gateway on `port`."""
    with site_client(folder, port) as made:
        yield made


def site_client(folder: Folder, port: int) -> httpx.Client:
    trust = ssl.create_default_context(cafile=folder.ca_certificate)
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}", verify=trust, timeout=PATIENT, trust_env=False
    )


@pytest.fixture
def connect(folder, port) -> Iterator[Callable[[], ssl.SSLSocket]]:
    """`connect()` → a TLS connection to the gateway, for bytes of every kind."""
    trust = ssl.create_default_context(cafile=folder.ca_certificate)
    with ExitStack() as stack:

        def open_connection() -> ssl.SSLSocket:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENT))
            return stack.enter_context(trust.wrap_socket(raw, server_hostname="localhost"))

        yield open_connection


def head(node, request: str, *fields: str) -> bytes:
    """A request line with a good signature and further fields."""
    signed = [f"{name.decode()}: {value.decode()}" for name, value in node.headers().items()]
    return "\r\n".join([request, "host: h", *signed, *fields, "", ""]).encode("latin-1")


def status(connection: ssl.SSLSocket) -> int:
    """Of the next answer; 0 where the connection is closed instead."""
    answer = HTTPResponse(connection)
    try:
        answer.begin()
        answer.read()
    except (HTTPException, ConnectionError, ssl.SSLError):
        return 0
    return answer.status


def is_closed(connection: ssl.SSLSocket) -> bool:
    """Wait until the other side closes; False where it says something first."""
    try:
        return connection.recv(1) == b""
    except (ConnectionError, ssl.SSLEOFError):
        return True


# --- What passes ---------------------------------------------------------------------------------


def test_a_signed_request_passes_with_its_body_and_answer(client, superlink, node):
    superlink.answer = bytes(range(256)) * 1000
    answer = client.post(ASK, headers=node.headers(), content=b"x" * LIMIT)
    assert (answer.status_code, answer.content) == (200, superlink.answer)
    ((method, path, headers, body),) = superlink.requests
    assert (method, path, body) == ("POST", ASK, b"x" * LIMIT)
    assert headers["host"] == f"127.0.0.1:{superlink.port}"
    assert headers["content-length"] == str(LIMIT)


def test_a_body_without_length_passes(client, superlink, node):
    pieces = iter([b"a" * 10, b"b" * 20])
    assert client.post(ASK, headers=node.headers(), content=pieces).status_code == 200
    assert superlink.requests[0][3] == b"a" * 10 + b"b" * 20


def test_flowers_own_client_gets_through_and_signs_each_try_anew(folder, node, superlink, start):
    from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    message = PullMessagesResponse(message_object_trees=[ObjectTree(object_id="a")])
    superlink.breaks_off = True
    superlink.answer = b"\x00\x00"
    port = start(superlink.port)
    signer = NodeAuthHttpInterceptor(node.private, node.private.public_key())
    trust = folder.ca_certificate.read_bytes()
    request = PullMessagesRequest(node=Node(node_id=7))
    with FleetHttpClient.from_server_address(f"localhost:{port}", False, trust, [signer]) as client:

        def pull(_: object) -> PullMessagesResponse:
            if len(superlink.requests) == 1:
                superlink.breaks_off, superlink.answer = False, message.SerializeToString()
            return client.PullMessages(request)

        retry = make_simple_http_retry_invoker()
        assert retry.invoke(pull, None) == message
    assert [body for *_, body in superlink.requests] == [request.SerializeToString()] * 2


def test_only_who_holds_an_enrolled_key_hears_that_it_is_enrolled(client, superlink, node):
    answer = client.get("/enrolled", headers=node.headers())
    assert (answer.status_code, answer.content) == (204, b"")
    stranger = client.get("/nothing")
    other = {**node.headers(), b"flwr-signature": b64encode(b"x" * 70)}
    for headers in ({}, other, {**node.headers(), b"flwr-public-key": b64encode(b"other")}):
        refused = client.get("/enrolled", headers=headers)
        assert (refused.status_code, refused.content) == (404, stranger.content)
    signed = node.headers()
    statuses = [client.get("/enrolled", headers=signed).status_code for _ in range(2)]
    assert statuses == [204, 404]  # nobody else can use what was overheard
    assert superlink.requests == []


def test_health_passes_and_tells_the_time(client, superlink):
    superlink.answer = b""
    for method in ("GET", "HEAD"):
        answer = client.request(method, "/health")
        assert (answer.status_code, answer.content) == (200, b"")
        assert len(answer.headers.get_list("date")) == 1
        parsedate_to_datetime(answer.headers["date"])
        assert "server" not in answer.headers
    assert [path for _, path, *_ in superlink.requests] == ["/health"] * 2


def test_many_at_a_time_each_get_their_own_answer(folder, port, superlink, enrol):
    nodes = [enrol(f"H{i}") for i in range(4)]
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        clients = [stack.enter_context(site_client(folder, port)) for _ in range(16)]

        def ask(i: int) -> int:
            headers = nodes[i % 4].headers()
            return clients[i % 16].post(ASK, headers=headers, content=f"{i}").status_code

        assert list(pool.map(ask, range(160))) == [200] * 160
    assert sorted(int(body) for *_, body in superlink.requests) == list(range(160))


# --- What does not -------------------------------------------------------------------------------


OTHER_TARGETS = [
    "/docs",
    "/openapi.json",
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/pull%2dmessages",
    "//v1/fleet/pull-messages",
    "/v1/fleet//pull-messages",
    "/v1/fleet/pull-messages?x",
    "/v1/fleet/pull-messages#x",
    "/health/../docs",
    "https://localhost/v1/fleet/pull-messages",
    "http://127.0.0.1:8000/docs",
    "localhost:8000",
    "*",
]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_targets_are_unknown_even_to_a_site(connect, superlink, node, method):
    connection = connect()
    for target in OTHER_TARGETS:
        connection.sendall(head(node, f"{method} {target} HTTP/1.1", "content-length: 0"))
        assert status(connection) == 404, target
    assert superlink.requests == []


NOT_HTTP = [
    b"\x00" * 100,
    b"GET\r\n\r\n",
    b"GET /health\r\n\r\n",  # HTTP/0.9
    b"GET /health HTTP/1.1\r\n\r\n",  # no host
    b"GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"GET /he\x01alth HTTP/1.1\r\nhost: h\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: h\r\nx : y\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: h\r\nx: \x00\r\n\r\n",
    b"POST /health HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
    b"POST /health HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    b"POST /health HTTP/1.1\r\nhost: h\r\ncontent-length: 1, 2\r\n\r\n",
    b"POST /health HTTP/1.1\r\nhost: h\r\ncontent-length: 0x10\r\n\r\n",
    b"POST /health HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\n",
    b"GET /" + b"a" * 70_000,
    b"GET /health HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * 20_000,
    b"GET /health HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 70_000,
]


def test_what_is_not_http_closes_its_connection_only(connect, superlink):
    other = connect()
    for data in NOT_HTTP:
        connection = connect()
        with suppress(ssl.SSLEOFError, ConnectionError):  # closed while we speak
            connection.sendall(data)
        assert status(connection) in (0, 400), data[:50]
        assert superlink.requests == []
    other.sendall(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
    assert status(other) == 200


def test_a_request_hidden_in_a_body_is_not_seen(connect, superlink, node):
    """Length and chunks contradict each other: whoever is behind must not read a second request."""
    hidden = head(node, "POST /v1/control/stop-run HTTP/1.1", "content-length: 0")
    connection = connect()
    fields = ("transfer-encoding: chunked", f"content-length: {len(hidden) + 5}")
    connection.sendall(head(node, f"POST {ASK} HTTP/1.1", *fields) + b"0\r\n\r\n" + hidden)
    assert status(connection) == 400
    assert superlink.requests == []


def test_without_tls_nobody_is_heard(port, superlink):
    with socket.create_connection(("127.0.0.1", port), PATIENT) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
        assert plain.recv(1000)[:4] != b"HTTP"
    assert superlink.requests == []


def test_old_tls_is_not_spoken(folder, port):
    trust = ssl.create_default_context(cafile=folder.ca_certificate)
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", port), PATIENT) as raw,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol"),
    ):
        trust.wrap_socket(raw, server_hostname="localhost")


def test_http_2_is_not_spoken(connect, superlink):
    connection = connect()
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert status(connection) == 404
    assert superlink.requests == []


def test_websockets_are_not_spoken(connect, superlink, node):
    connection = connect()
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    key = "sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg=="
    connection.sendall(head(node, f"GET {ASK} HTTP/1.1", *upgrade, key))
    assert status(connection) == 404
    assert superlink.requests == []


def test_a_stranger_with_the_certificate_of_the_authority_gets_nowhere(client, superlink):
    for path in (ASK, "/v1/fleet/register-node", "/v1/fleet/get-fab"):
        assert client.post(path, content=b"x").status_code == 401
    assert superlink.requests == []


def test_a_replay_and_a_revoked_key_are_refused(client, superlink, node, folder):
    headers = node.headers()
    assert client.post(ASK, headers=headers).status_code == 200
    answer = client.post(ASK, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "H1: the signature was used before"}
    revoke(folder, "H1")
    assert client.post(ASK, headers=node.headers()).status_code == 401
    assert len(superlink.requests) == 1


def test_a_body_that_is_too_long_is_refused_and_the_next_request_passes(client, superlink, node):
    answer = client.post(ASK, headers=node.headers(), content=b"x" * (LIMIT + 1))
    assert answer.status_code == 413
    assert superlink.requests == []
    assert client.post(ASK, headers=node.headers()).status_code == 200


def test_a_body_without_end_is_refused_before_it_ends(connect, superlink, node):
    connection = connect()
    connection.sendall(head(node, f"POST {ASK} HTTP/1.1", "transfer-encoding: chunked"))
    for _ in range(12):
        connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")  # 0x2710 = 10 000
    assert status(connection) == 413
    assert superlink.requests == []


def test_a_body_that_does_not_come_is_not_waited_for(connect, superlink, node, monkeypatch):
    monkeypatch.setattr(proxy, "REQUEST_SECONDS", 0.2)
    connection = connect()
    connection.sendall(head(node, f"POST {ASK} HTTP/1.1", "content-length: 9") + b"half")
    assert status(connection) == 504
    assert superlink.requests == []


def test_a_stranger_that_waits_for_leave_to_send_is_not_given_it(connect, superlink):
    connection = connect()
    fields = "host: h\r\ncontent-length: 100000\r\nexpect: 100-continue\r\n\r\n"
    connection.sendall(f"POST {ASK} HTTP/1.1\r\n{fields}".encode())
    assert connection.recv(12) == b"HTTP/1.1 401"


# --- Those who do not ask ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/fl",
        b"GET /health HTTP/1.1\r\nhost: h\r\n\r\nGET /hea",
        b"POST /v1/fleet/get-run HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a second head", "a refused body that does not come"],
)
def test_a_connection_without_a_request_is_closed(connect, monkeypatch, sent):
    monkeypatch.setattr(gateway, "PATIENCE", 0.05)
    connection = connect()
    connection.sendall(sent)
    received = True
    while received:  # what was asked in full is answered; then the end
        try:
            received = connection.recv(65536)
        except (ConnectionError, ssl.SSLEOFError):
            received = b""


def test_drops_do_not_keep_a_connection_open(connect, monkeypatch):
    monkeypatch.setattr(gateway, "PATIENCE", 0.05)
    connection = connect()
    connection.sendall(b"GET /health HTTP/1.1\r\nx: ")
    with pytest.raises((ConnectionError, ssl.SSLError)):
        while True:
            connection.sendall(b"y")
            threading.Event().wait(0.01)


def test_a_request_under_way_is_waited_for(connect, superlink, node, monkeypatch):
    looks = threading.Semaphore(0)
    look = gateway.ImpatientProtocol._look

    def counted(self, previous):
        look(self, previous)
        looks.release()

    monkeypatch.setattr(gateway, "PATIENCE", 0.02)
    monkeypatch.setattr(gateway.ImpatientProtocol, "_look", counted)
    superlink.may_answer.clear()
    connection = connect()
    connection.sendall(head(node, f"POST {ASK} HTTP/1.1", "content-length: 0"))
    assert superlink.asked.acquire(timeout=PATIENT)
    for _ in range(5):
        assert looks.acquire(timeout=PATIENT)
    superlink.may_answer.set()
    assert status(connection) == 200


def test_connections_in_excess_are_closed_and_the_others_served(connect, monkeypatch, caplog):
    monkeypatch.setattr(gateway, "CONNECTIONS", 3)
    kept = [connect() for _ in range(3)]
    for connection in kept:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
        assert status(connection) == 200
    assert is_closed(connect())
    assert "more than 3 connections: one is closed" in caplog.text
    kept[0].close()
    answered = 0
    for _ in range(100):  # until the gateway has seen it go
        newcomer = connect()
        with suppress(ssl.SSLEOFError, ConnectionError):
            newcomer.sendall(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
        answered = status(newcomer)
        if answered:
            break
    assert answered == 200


def test_one_address_cannot_take_all_connections(folder, superlink, start, caplog):
    superlink_port = superlink.port
    port = start(superlink_port, address_connections=2)
    trust = ssl.create_default_context(cafile=folder.ca_certificate)
    with ExitStack() as stack:

        def connect() -> ssl.SSLSocket:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENT))
            return stack.enter_context(trust.wrap_socket(raw, server_hostname="localhost"))

        for connection in (connect(), connect()):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
            assert status(connection) == 200
        assert is_closed(connect())
    assert "127.0.0.1: more than 2 connections (limits.address_connections" in caplog.text


@pytest.mark.parametrize(
    ("client", "place"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:0:1:2::3", 1), "2001:db8:0:1::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (None, "None"),
    ],
)
def test_an_address_of_ipv6_is_that_of_its_network(client, place):
    assert gateway._place(client) == place


def test_those_who_only_connect_keep_nobody_out(client, port, node):
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENT))
        assert client.post(ASK, headers=node.headers()).status_code == 200


def test_asking_for_health_keeps_no_site_out(folder, port, superlink, node, client):
    """Sites have connections to the SuperLink of their own."""
    superlink.may_answer.clear()
    with ThreadPoolExecutor(21) as pool:

        def ask(_: int) -> int:
            with site_client(folder, port) as curious:
                return curious.get("/health").status_code

        answers = [pool.submit(ask, i) for i in range(20)]
        for _ in range(gateway.HEALTH_CONNECTIONS):
            assert superlink.asked.acquire(timeout=PATIENT)
        post = pool.submit(client.post, ASK, headers=node.headers())
        assert superlink.asked.acquire(timeout=PATIENT)
        assert [path for _, path, *_ in superlink.requests].count("/health") == (
            gateway.HEALTH_CONNECTIONS
        )
        superlink.may_answer.set()
        assert post.result().status_code == 200
        assert {answer.result() for answer in answers} <= {200, 503}


# --- When the SuperLink fails --------------------------------------------------------------------


def test_a_request_waits_while_the_superlink_is_restarted(
    folder, superlink, start, node, monkeypatch
):
    refused = threading.Semaphore(0)
    send = httpx.AsyncClient.send

    async def noted(self, request, **others):
        try:
            return await send(self, request, **others)
        except httpx.ConnectError:
            refused.release()
            raise

    monkeypatch.setattr(httpx.AsyncClient, "send", noted)
    with socket.socket() as port, ThreadPoolExecutor(1) as pool:
        port.bind(("127.0.0.1", 0))  # nobody listens yet
        client = site_client(folder, start(port.getsockname()[1]))
        answer = pool.submit(client.post, ASK, headers=node.headers(), content=b"x" * LIMIT)
        assert refused.acquire(timeout=PATIENT)
        server = uvicorn.Server(superlink_config(superlink, folder))
        with serving(server, lambda: server.serve([port])):
            assert answer.result().status_code == 200
        client.close()
    assert superlink.requests[0][3] == b"x" * LIMIT


def test_while_the_superlink_is_down_sites_are_asked_to_wait(folder, start, node, monkeypatch):
    monkeypatch.setattr(proxy, "RESTART_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        upstream = gone.getsockname()[1]
    with site_client(folder, start(upstream)) as client:
        for method, path in (("POST", ASK), ("GET", "/health")):
            answer = client.request(method, path, headers=node.headers())
            assert answer.status_code == 503
            assert "SuperLink is not running" in answer.json()["detail"]
            assert "date" in answer.headers


def test_a_superlink_that_does_not_answer_is_given_up(folder, superlink, node, start, monkeypatch):
    monkeypatch.setattr(gateway, "UPSTREAM_TIMEOUT", httpx.Timeout(60, read=0.1))
    superlink.may_answer.clear()
    with site_client(folder, start(superlink.port)) as client:
        answer = client.post(ASK, headers=node.headers())
    assert answer.status_code == 504
    assert answer.json() == {"detail": "the SuperLink does not answer"}


def test_an_answer_cut_short_is_not_taken_for_a_whole_one(client, superlink, node):
    superlink.answer, superlink.breaks_off = b"x" * 1000, True
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(ASK, headers=node.headers())
    superlink.breaks_off = False
    assert client.post(ASK, headers=node.headers()).status_code == 200


def test_a_superlink_of_another_authority_is_not_trusted(
    tmp_path, folder, make_study, superlink, start, node, monkeypatch
):
    monkeypatch.setattr(proxy, "RESTART_SECONDS", 0)
    other = Folder(tmp_path / "other")
    provision(other, make_study(), ServerSettings(), [])
    own = folder.ca_certificate.read_bytes()
    folder.ca_certificate.write_bytes(other.ca_certificate.read_bytes())
    port = start(superlink.port)
    folder.ca_certificate.write_bytes(own)
    with site_client(folder, port) as client:
        assert client.post(ASK, headers=node.headers()).status_code == 503
    assert superlink.requests == []


# --- The process ---------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def test_the_process_serves_until_it_is_told_to_end(folder, superlink, node, free_port):
    folder.settings.write_text(f"[server]\nport = {free_port}\n")
    write_atomically(folder.connected, b"{}")
    command = [sys.executable, "-m", "hica_server.gateway", folder.root, str(superlink.port)]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        site_client(folder, free_port) as client,
    ):
        try:
            answer = None
            while answer is None:
                assert process.poll() is None
                try:
                    answer = client.post(ASK, headers=node.headers())
                except httpx.ConnectError:
                    threading.Event().wait(0.05)
                else:
                    if answer.status_code == 503:  # signed before the gateway was started
                        answer = None
            assert answer.status_code == 200
            assert client.get("/docs").status_code == 404
        finally:
            process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGTERM)
    assert "GET b'/docs': 404 no such path" in said


def test_a_port_that_is_taken_is_named(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServerSettings(server=ServerSection(port=taken.getsockname()[1]))
        with pytest.raises(ConfigurationError) as error:
            open_port(settings)
    assert str(error.value).startswith("server.toml: server.listen, server.port: 127.0.0.1 port ")
    assert "Address already in use; end the program that has it" in str(error.value)


def test_answers_are_not_held_back(free_port):
    with (
        open_port(ServerSettings(server=ServerSection(port=free_port))) as port,
        socket.create_connection(("127.0.0.1", free_port)),
    ):
        accepted, _ = port.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_of_another_machine_is_named():
    settings = ServerSettings(server=ServerSection(listen="192.0.2.1"))
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1 port 8443 cannot be opened"):
        open_port(settings)


def test_a_folder_without_certificates_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), "1"])
    assert end.value.code == 2
    assert f"hica-server provision {tmp_path}" in capsys.readouterr().err


def test_many_files_may_be_open():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        gateway.allow_many_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == (16384 if hard == resource.RLIM_INFINITY else min(16384, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_before_the_superlink_knows_the_sites_they_are_asked_to_wait(folder, client, node):
    folder.connected.unlink()
    answer = client.post(ASK, headers=node.headers())
    assert answer.status_code == 503


def test_what_is_imported_is_left_out_of_garbage_collection():
    try:
        collect_often()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects(generation=2)) < gc.get_freeze_count() / 10
    finally:
        gc.unfreeze()
