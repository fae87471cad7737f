import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from hica_server import proxy as proxy_module
from hica_server.admission import Admission
from hica_server.asked import note_asked
from hica_server.enrolment import revoke
from hica_server.proxy import Proxy
from hica_server.settings import Folder
from hica_server.traffic import Traffic

LIMIT = 1000
UNASKED = 2500
ASK = b"/v1/fleet/get-run"
PULL = b"/v1/fleet/pull-messages"
ANNOUNCE = b"/v1/fleet/push-messages"
OBJECT = b"/v1/fleet/push-object"
BEAT = b"/v1/fleet/send-node-heartbeat"


class SuperLink:
    """What stands behind the proxy: keeps each request, and answers with `answer`."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(
            200, headers={"content-type": "application/protobuf"}, content=b"answer"
        )

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answer(request)
        if not isinstance(answer.stream, httpx.ByteStream):
            return answer
        # as from a wire: not read yet
        return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


@pytest.fixture
def node(enrol):
    return enrol("H1")


@pytest.fixture
def app(tmp_path, superlink) -> Proxy:

    def client() -> httpx.AsyncClient:
        transport = httpx.MockTransport(superlink)
        return httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8000")

    folder = Folder(tmp_path / "study")
    return Proxy(Admission(folder), client(), client(), LIMIT, Traffic(folder.asked, UNASKED))


@pytest.fixture
def ask(app):
    """`ask(method, path, headers, body pieces)` → (status, headers, body).

    The body ends the request, unless `disconnect`: then the asker goes away after it. Otherwise it
    goes away once it has asked, unless it `stays` for the answer.
    """

    def run(
        method: str,
        path: bytes,
        headers: dict[bytes, bytes] | None = None,
        body: tuple[bytes, ...] = (b"",),
        query: bytes = b"",
        disconnect: bool = False,
        stays: bool = False,
    ) -> tuple[int | None, dict[bytes, bytes], bytes]:
        events = [{"type": "http.request", "body": part, "more_body": True} for part in body]
        events[-1]["more_body"] = disconnect
        if not stays:
            events.append({"type": "http.disconnect"})
        sent: list[dict] = []

        async def receive() -> dict:
            if not events:
                await asyncio.Event().wait()
            return events.pop(0)

        async def send(event: dict) -> None:
            sent.append(dict(event))

        scope = {
            "type": "http",
            "method": method,
            "raw_path": path,
            "query_string": query,
            "headers": list((headers or {}).items()),
            "client": ("192.0.2.7", 4711),
        }
        asyncio.run(app(scope, receive, send))
        if not sent:
            return None, {}, b""
        assert [event["type"] for event in sent[1:]] == ["http.response.body"] * (len(sent) - 1)
        text = b"".join(event["body"] for event in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), text

    return run


def detail(answer: tuple[int, dict[bytes, bytes], bytes]) -> tuple[int, str]:
    status, headers, body = answer
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body)
    return status, json.loads(body)["detail"]


# --- What passes ---------------------------------------------------------------------------------


def test_a_signed_request_and_its_answer_pass_unchanged(ask, superlink, node):
    headers = node.headers() | {
        b"content-type": b"application/protobuf",
        b"content-length": b"6",
        b"flwr-package-version": b"1.41.0",
    }
    status, answered, body = ask("POST", ASK, headers, (b"abc", b"def"))
    assert (status, body) == (200, b"answer")
    assert answered == {b"content-type": b"application/protobuf", b"content-length": b"6"}
    (request,) = superlink.requests
    assert (request.method, request.url.raw_path, request.content) == ("POST", ASK, b"abcdef")
    passed = {name.lower(): value for name, value in request.headers.raw}
    assert passed.items() >= headers.items()


@pytest.mark.parametrize(
    "name",
    [
        "register-node",
        "activate-node",
        "deactivate-node",
        "unregister-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    ],
)
def test_everything_a_supernode_asks_passes(ask, node, announcement, name):
    body = announcement().SerializeToString() if name == "push-messages" else b""
    assert ask("POST", f"/v1/fleet/{name}".encode(), node.headers(), (body,))[0] == 200


def test_these_are_all_that_flower_has():
    from flwr.superlink.routers.fleet.router import router

    paths = {route.path for route in router.routes}
    assert len(paths) == 12
    assert all(proxy_module.FLEET.fullmatch(path.encode()) for path in paths)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_passes_without_signature(ask, superlink, method):
    assert ask(method, b"/health")[0] == 200
    (request,) = superlink.requests
    assert (request.method, request.url.raw_path) == ("GET", b"/health")


@pytest.mark.parametrize("status", [401, 403, 412, 500, 503])
def test_an_error_of_the_superlink_passes(ask, superlink, node, status):
    superlink.answer = lambda _: httpx.Response(
        status, json={"code": 2004, "detail": "x"}, headers={"flwr-version-incompatibility": "y"}
    )
    answer = ask("POST", ASK, node.headers())
    assert (answer[0], json.loads(answer[2])) == (status, {"code": 2004, "detail": "x"})
    assert answer[1][b"flwr-version-incompatibility"] == b"y"


def test_only_known_fields_pass_in(ask, superlink, node):
    hostile = {
        b"host": b"x/v1/control/start-run?",
        b"connection": b"flwr-signature, upgrade",
        b"upgrade": b"h2c",
        b"transfer-encoding": b"gzip, chunked",
        b"te": b"trailers",
        b"forwarded": b"for=127.0.0.1",
        b"x-forwarded-for": b"127.0.0.1",
        b"authorization": b"Bearer x",
        b"cookie": b"a=b",
        b"expect": b"100-continue",
        b"content-encoding": b"gzip",
        b"x-http-method-override": b"DELETE",
    }
    assert ask("POST", ASK, node.headers() | hostile)[0] == 200
    (request,) = superlink.requests
    assert request.headers["host"] == "127.0.0.1:8000"
    values = {value for _, value in request.headers.raw}
    assert values.isdisjoint(hostile.values())


def test_only_known_fields_pass_out(ask, superlink):
    hidden = {"server": "uvicorn", "date": "x", "connection": "close", "set-cookie": "a=b"}
    superlink.answer = lambda _: httpx.Response(200, headers=hidden, content=b"ok")
    assert ask("GET", b"/health")[1].keys() == {b"content-length"}


# --- What does not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"",
        b"*",
        b"/docs",
        b"/redoc",
        b"/openapi.json",
        b"/docs/oauth2-redirect",
        b"/v1/control/list-runs",
        b"/v1/control/start-run",
        b"/v1/control/stop-run",
        b"/v1/control/list-nodes",
        b"/v1/control/register-node",
        b"/v1/runtime/acquire-task",
        b"/v1/runtime/push-object",
        b"/v1/responses",
        b"/v1/fleet",
        b"/v1/fleet/",
        b"/v1/fleet/pull-messages/",
        b"/v1/fleet/pull-messages/x",
        b"/v1/fleet/../control/list-runs",
        b"/v1/fleet/..",
        b"/v1/fleet/.",
        b"/v1/fleet/./pull-messages",
        b"/v1/fleet/pull-messages/../../control/list-runs",
        b"/v1/fleet//pull-messages",
        b"//v1/fleet/pull-messages",
        b"/v1//fleet/pull-messages",
        b"/v1/fleet/%2e%2e/control/list-runs",
        b"/v1/fleet/..%2fcontrol%2flist-runs",
        b"/v1/fleet/pull%2dmessages",
        b"/%761/fleet/pull-messages",
        b"/v1/fleet%2fpull-messages",
        b"/v1/fleet/pull-messages%00",
        b"/v1/fleet/pull-messages%0d%0aX:%20y",
        b"/v1/fleet/pull-messages;x=1",
        b"/v1/fleet/pull-messages#x",
        b"/v1/fleet/pull-messages\n",
        b"/v1/fleet/pull_messages",
        b"/v1/fleet/-",
        b"/v1/fleet/\xc3\xa4",
        b"/V1/FLEET/ASK-MESSAGES",
        b"/v1/fleet\\..\\docs",
        b"https://127.0.0.1/v1/fleet/pull-messages",
        b"http://127.0.0.1:8000/docs",
        b"127.0.0.1:8000",
        b"/health/",
        b"/health/../docs",
        b"/health%2f",
        b"/healthz",
        b"//health",
        b"/Health",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_other_path_is_unknown(ask, superlink, node, method, path):
    assert detail(ask(method, path, node.headers())) == (404, "no such path")
    assert superlink.requests == []


@pytest.mark.parametrize("path", [ASK, b"/health"])
def test_queries_are_unknown(ask, superlink, node, path):
    for method in ("GET", "POST"):
        answer = ask(method, path, node.headers(), query=b"x=/docs")
        assert detail(answer) == (404, "nothing here takes a query")
    assert superlink.requests == []


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "X"]
)
def test_sites_only_post(ask, superlink, node, method):
    assert ask(method, ASK, node.headers())[0] == 404
    assert superlink.requests == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_health_is_only_looked_at(ask, superlink, method):
    assert ask(method, b"/health")[0] == 404
    assert superlink.requests == []


def test_without_signature_nothing_passes(ask, superlink, node):
    assert detail(ask("POST", ASK)) == (401, "header flwr-public-key missing")
    assert superlink.requests == []


def test_a_replay_does_not_pass_though_path_and_body_are_others(ask, superlink, node):
    headers = node.headers()
    assert ask("POST", ASK, headers, (b"x",))[0] == 200
    answer = ask("POST", b"/v1/fleet/get-fab", headers, (b"y",))
    assert detail(answer) == (401, "H1: the signature was used before")
    assert len(superlink.requests) == 1


def test_a_stale_signature_does_not_pass(ask, superlink, node):
    status, said = detail(ask("POST", ASK, node.headers(at=0)))
    assert status == 401
    assert "clock" in said
    assert superlink.requests == []


def test_a_revoked_site_does_not_pass(ask, superlink, node, tmp_path):
    revoke(Folder(tmp_path / "study"), "H1")
    assert detail(ask("POST", ASK, node.headers())) == (401, "not the key of an enrolled site")
    assert superlink.requests == []


def test_the_body_of_a_stranger_is_not_read(ask, superlink):
    body = (b"x" * LIMIT,) * 50  # more than the limit, which would be 413
    assert ask("POST", ASK, {}, body)[0] == 401


def test_a_body_may_be_as_long_as_the_limit(ask, superlink, node):
    assert ask("POST", ASK, node.headers(), (b"x" * 600, b"y" * 400))[0] == 200
    assert len(superlink.requests[0].content) == LIMIT


def test_a_body_that_says_it_is_too_long_is_not_begun(ask, superlink, node):
    headers = node.headers() | {b"content-length": b"1001"}
    answer = ask("POST", ASK, headers, (b"x" * 1001,))
    assert detail(answer) == (413, "body of more than 1000 bytes")
    assert superlink.requests == []


def test_a_body_that_turns_out_too_long_is_broken_off(ask, superlink, node):
    answer = ask("POST", ASK, node.headers(), (b"x" * 600, b"y" * 401))
    assert detail(answer) == (413, "body of more than 1000 bytes")
    assert superlink.requests == []


def test_who_goes_away_in_the_middle_gets_no_answer(ask, superlink, node):
    assert ask("POST", ASK, node.headers(), (b"x",), disconnect=True)[0] is None
    assert superlink.requests == []


def test_the_superlink_sees_nothing_of_a_body_before_its_end(app, superlink, node):
    body = [{"type": "http.request", "body": b"abc", "more_body": True}]
    body += [{"type": "http.request", "body": b"def", "more_body": False}]
    seen = []

    async def receive() -> dict:
        seen.append(len(superlink.requests))
        return body.pop(0)

    asyncio.run(app(post(ASK, node.headers()), receive, no_reader))
    assert seen == [0, 0]
    assert superlink.requests[0].content == b"abcdef"


def test_a_long_body_waits_on_disk_and_passes_unchanged(ask, superlink, node, monkeypatch):
    monkeypatch.setattr(proxy_module, "IN_MEMORY", 4)
    monkeypatch.setattr(proxy_module, "PIECE", 3)
    status, _, _ = ask("POST", ASK, node.headers(), (b"0123456", b"789"))
    assert status == 200
    assert superlink.requests[0].content == b"0123456789"


@pytest.mark.parametrize("path", sorted(proxy_module.OBJECTS))
def test_pieces_of_updates_reach_the_superlink_a_few_at_a_time_and_nothing_waits_for_them(
    app, superlink, node, path
):
    released, arrived = asyncio.Event(), asyncio.Semaphore(0)

    async def answer_when_released(request: httpx.Request) -> httpx.Response:
        response = await superlink(request)
        if request.url.raw_path == path:
            arrived.release()
            await released.wait()
        return response

    transport = httpx.MockTransport(answer_when_released)
    app._fleet = httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8000")

    async def whole_body() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> list[bytes]:
        scopes = [post(path, node.headers()) for _ in range(5)]
        sent = [asyncio.ensure_future(app(scope, whole_body, no_reader)) for scope in scopes]
        for _ in range(proxy_module.OBJECTS_AT_A_TIME):
            await arrived.acquire()
        await app(post(BEAT, node.headers()), whole_body, no_reader)
        seen = [request.url.raw_path for request in superlink.requests]
        released.set()
        await asyncio.gather(*sent)
        return seen

    assert asyncio.run(run()) == [path] * proxy_module.OBJECTS_AT_A_TIME + [BEAT]
    assert len(superlink.requests) == 6


def post(path: bytes, headers: dict[bytes, bytes]) -> dict:
    scope = {"type": "http", "method": "POST", "raw_path": path, "query_string": b""}
    return scope | {"headers": list(headers.items()), "client": ("192.0.2.7", 4711)}


async def no_reader(_: dict) -> None:
    """Takes an answer and forgets it."""


# --- What a site stores -------------------------------------------------------------------------


def test_an_answer_is_announced_unchanged(ask, superlink, node, announcement):
    body = announcement().SerializeToString()
    assert ask("POST", ANNOUNCE, node.headers(), (body[:9], body[9:]))[0] == 200
    assert superlink.requests[0].content == body


@pytest.mark.parametrize("dst", [1, 8])
def test_what_is_no_answer_is_refused_by_name_and_not_passed_on(
    ask, superlink, node, announcement, caplog, dst
):
    """To another node in the coordinator's name; to the coordinator without having been asked."""
    request = announcement(src_node_id=1, dst_node_id=dst, reply_to_message_id="")
    answer = ask("POST", ANNOUNCE, node.headers(), (request.SerializeToString(),))
    assert detail(answer) == (403, "H1: sends a message in the name of another")
    assert "403 H1: sends a message in the name of another" in caplog.text
    assert superlink.requests == []


def test_an_announcement_is_short(ask, superlink, node, app, monkeypatch):
    monkeypatch.setattr(proxy_module, "LONGEST_ANNOUNCEMENT", 10)
    answer = ask("POST", ANNOUNCE, node.headers(), (b"x" * 11,))
    assert detail(answer) == (413, "body of more than 10 bytes")
    assert superlink.requests == []


def test_a_site_stores_what_it_was_asked_for_and_a_little_more(
    ask, superlink, enrol, node, tmp_path
):
    folder, other = Folder(tmp_path / "study"), enrol("H2")
    note_asked(folder.asked, {"H1": LIMIT})
    for _ in range(3):
        assert ask("POST", OBJECT, node.headers(), (b"x" * LIMIT,))[0] == 200
    status, said = detail(ask("POST", OBJECT, node.headers(), (b"x" * LIMIT,)))
    assert (status, said.split(":")[0]) == (413, "H1")
    assert "2500 bytes (limits.unasked_bytes of its server.toml)" in said
    assert len(superlink.requests) == 3
    assert ask("POST", b"/v1/fleet/pull-object", node.headers(), (b"x" * LIMIT,))[0] == 200
    assert ask("POST", OBJECT, other.headers(), (b"x" * LIMIT,))[0] == 200
    note_asked(folder.asked, {"H1": LIMIT})
    assert ask("POST", OBJECT, node.headers(), (b"x" * LIMIT,))[0] == 200


def test_what_was_not_stored_does_not_count(ask, superlink, node, monkeypatch):
    """Flower's answer has no bytes where an object was there already."""
    monkeypatch.setattr(proxy_module, "RESTART_SECONDS", 0)

    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("x")

    for answer in (lambda _: EMPTY, lambda _: httpx.Response(412), fail):
        superlink.answer = answer
        for _ in range(4):
            status, *_ = ask("POST", OBJECT, node.headers(), (b"x" * LIMIT,))
            assert status in (200, 412, 503)


def test_what_is_broken_off_at_the_end_of_its_time_counts(ask, superlink, node, monkeypatch):
    """A site that times its request well cannot store it for nothing."""

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()

    monkeypatch.setattr(SuperLink, "__call__", lambda _, request: never(request))
    monkeypatch.setattr(proxy_module, "REQUEST_SECONDS", 0.05)
    statuses = [ask("POST", OBJECT, node.headers(), (b"x" * LIMIT,))[0] for _ in range(3)]
    assert statuses == [504, 504, 413]


# --- Questions for messages ----------------------------------------------------------------------

EMPTY = httpx.Response(200, headers={"content-length": "0"}, content=b"")


def test_a_question_is_held_until_there_is_a_message(ask, superlink, node, monkeypatch):
    monkeypatch.setattr(proxy_module, "FIRST_LOOK_SECONDS", 0.001)
    answers = [EMPTY, EMPTY, EMPTY, httpx.Response(200, content=b"message")]
    superlink.answer = lambda _: answers.pop(0)
    headers = node.headers()
    status, _, body = ask("POST", PULL, headers, (b"node", b" id"), stays=True)
    assert (status, body) == (200, b"message")
    assert [request.content for request in superlink.requests] == [b"node id"] * 4
    for request in superlink.requests:
        assert {
            name.lower(): value for name, value in request.headers.raw
        }.items() >= headers.items()


def test_a_question_is_not_held_for_ever(ask, superlink, node, monkeypatch):
    monkeypatch.setattr(proxy_module, "HOLD_SECONDS", 0.3)
    superlink.answer = lambda _: EMPTY
    status, headers, body = ask("POST", PULL, node.headers(), stays=True)
    assert (status, headers, body) == (200, {b"content-length": b"0"}, b"")
    assert len(superlink.requests) > 1


def test_no_message_is_taken_for_a_site_that_has_gone(ask, superlink, node):
    answers = [EMPTY, httpx.Response(200, content=b"message")]
    superlink.answer = lambda _: answers.pop(0)
    assert ask("POST", PULL, node.headers())[0] is None
    assert len(answers) == 1


def test_no_question_is_held_by_a_gateway_that_ends(ask, app, superlink, node, monkeypatch):
    monkeypatch.setattr(proxy_module, "HOLD_SECONDS", 3600.0)
    superlink.answer = lambda _: EMPTY
    app.end()
    assert ask("POST", PULL, node.headers(), stays=True)[0] == 200


def test_a_refusal_is_passed_on_at_once(ask, superlink, node):
    superlink.answer = lambda _: httpx.Response(401, headers={"content-length": "0"}, content=b"")
    assert ask("POST", PULL, node.headers(), stays=True)[0] == 401
    assert len(superlink.requests) == 1


def test_a_question_of_more_than_a_node_id_is_not_held_in_memory(ask, node):
    answer = ask("POST", PULL, node.headers(), (b"x" * 3000, b"y" * 1097))
    assert detail(answer) == (413, "body of more than 4096 bytes")


# --- When the SuperLink fails --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (httpx.ConnectError("x"), 503, "the SuperLink is not running, or just being restarted"),
        (httpx.ConnectTimeout("x"), 503, "the SuperLink is not running, or just being restarted"),
        (httpx.PoolTimeout("x"), 503, "too many requests at a time"),
        (httpx.ReadTimeout("x"), 504, "the SuperLink does not answer"),
        (httpx.WriteTimeout("x"), 504, "the SuperLink does not answer"),
        (httpx.ReadError("x"), 502, "the connection to the SuperLink broke off"),
        (httpx.WriteError("x"), 502, "the connection to the SuperLink broke off"),
        (httpx.RemoteProtocolError("x"), 502, "the connection to the SuperLink broke off"),
    ],
)
def test_a_failure_of_the_superlink_lets_the_site_try_again(
    ask, superlink, node, monkeypatch, error, status, said
):
    from flwr.supercore.retry.http_retry import _RETRYABLE_STATUS_CODES

    monkeypatch.setattr(proxy_module, "RESTART_SECONDS", 0)

    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    superlink.answer = fail
    assert detail(ask("POST", ASK, node.headers())) == (status, said)
    assert status in _RETRYABLE_STATUS_CODES


def test_a_request_waits_while_the_superlink_is_restarted(ask, superlink, node, monkeypatch):
    failures = [httpx.ConnectError("x")] * 3

    def answer(_: httpx.Request) -> httpx.Response:
        if failures:
            raise failures.pop()
        return httpx.Response(200, content=b"answer")

    monkeypatch.setattr(proxy_module, "RETRY_SECONDS", 0)
    superlink.answer = answer
    status, _, body = ask("POST", ASK, node.headers(), (b"ab", b"c"))
    assert (status, body) == (200, b"answer")
    assert superlink.requests[-1].content == b"abc"


def test_what_may_have_reached_the_superlink_is_not_sent_twice(ask, superlink, node):
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("x")

    superlink.answer = fail
    assert ask("POST", ASK, node.headers())[0] == 502
    assert len(superlink.requests) == 1


def test_an_answer_that_breaks_off_is_not_completed(ask, superlink, node, caplog):
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"half"
            raise httpx.ReadError("x")

    superlink.answer = lambda _: httpx.Response(200, stream=Broken())
    assert ask("POST", ASK, node.headers()) == (200, {}, b"half")
    assert "502 the connection to the SuperLink broke off" in caplog.text


def test_nobody_is_waited_for_without_end(ask, superlink, node, monkeypatch, caplog):
    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self):
            await asyncio.Event().wait()
            yield b""

    monkeypatch.setattr(proxy_module, "REQUEST_SECONDS", 0.01)
    superlink.answer = lambda _: httpx.Response(200, stream=Silent())
    assert ask("POST", ASK, node.headers()) == (200, {}, b"")
    assert "504 took longer than" in caplog.text


# --- Log -----------------------------------------------------------------------------------------


def test_what_is_refused_is_logged_in_one_printable_line(ask, caplog):
    ask("X" * 500, b"/\r\n\x1b[31mfake\xff" + b"a" * 500)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("192.0.2.7 XXXXXXXX b'/\\r\\n\\x1b[31mfake\\xffaaa")
    assert line.endswith("': 404 no such path")
    assert line.isprintable()
    assert len(line) < 200


def test_what_passes_is_not_logged(ask, node, caplog):
    ask("POST", ASK, node.headers())
    ask("GET", b"/health")
    assert caplog.records == []
