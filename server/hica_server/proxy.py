"""Proxy: what the gateway does with one request.

It passes on what SuperNodes ask, signed and within bounds, and knows nothing else. What comes in is
trusted in no part: the request to the SuperLink is written anew, of the few fields looked at here.

A SuperNode that finds no message waits three seconds before it asks again, in every exchange. So
its question is held here, and asked anew, first often and then every second, until there is one.

The pieces of updates are handed to the SuperLink whole and a few at a time: it holds every one that
is under way several times over, and a site that is slow to send keeps it from nothing.

What a site sends must be an answer of its own, and no more than it was asked for:
`hica_server.superlink.fleet_messages` and `hica_server.traffic`.
"""

import asyncio
import json
import logging
import re
import time
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import httpx

from hica_server.admission import Admission, RefusedError
from hica_server.superlink.fleet_messages import why_refused
from hica_server.traffic import Traffic

logger = logging.getLogger("hica.gateway")

FLEET = re.compile(rb"/v1/fleet/[a-z]+(-[a-z]+)*")
"""What SuperNodes ask for, matched on the bytes as sent: no dots, no second slash, no percent."""
PULL = b"/v1/fleet/pull-messages"
ANNOUNCE = b"/v1/fleet/push-messages"
PUSH = b"/v1/fleet/push-object"
OBJECTS = {PUSH, b"/v1/fleet/pull-object"}
STORED = {ANNOUNCE, PUSH}
"""What the SuperLink keeps on disk."""
HEALTH = b"/health"
ENROLLED = b"/enrolled"
"""Asked by a hospital that wants to know whether its key is."""
PASSED = {b"accept", b"content-length", b"content-type"}
"""Header fields passed on, either way, beside Flower's own (`flwr-…`)."""
REQUEST_SECONDS = 300.0
"""From the head of a request to the end of its answer."""
RESTART_SECONDS = 15.0
"""A request waits that long for the SuperLink: half as long as a SuperNode waits for its answer."""
RETRY_SECONDS = 0.25
HOLD_SECONDS = 10.0
"""A question for messages is held that long; what lies on the way may end longer ones."""
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.1, 1.0
"""Between two looks for a message; each wait is half as long again as the one before."""
LONGEST_QUESTION = 4096
"""Bytes of a question for messages, which holds a node id."""
LONGEST_ANNOUNCEMENT = 2**20
"""Bytes: 70 for each object of an answer, which has 2048 at most (`superlink.upload`)."""

OBJECTS_AT_A_TIME = 2
"""Pieces of updates, of up to 5 MiB, between here and the SuperLink."""
PIECE = 2**16
IN_MEMORY = 8 * 2**20
"""Bytes of a body that is waited for; those of a longer one lie on disk."""

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]


class Proxy:
    """ASGI app between the outside and the SuperLink.

    `fleet` is the client to the SuperLink for signed requests, `health` another for `/health`:
    anybody may ask that, and must not use up the sites' own. A body may have `limit` bytes, all
    that a site stores what `traffic` allows.
    """

    def __init__(
        self,
        admission: Admission,
        fleet: httpx.AsyncClient,
        health: httpx.AsyncClient,
        limit: int,
        traffic: Traffic,
    ) -> None:
        self._admission, self._fleet, self._health = admission, fleet, health
        self._limit, self._traffic = limit, traffic
        self._ending = asyncio.Event()
        self._turns = asyncio.Semaphore(OBJECTS_AT_A_TIME)

    def end(self) -> None:
        """Hold no request any longer: the gateway is about to end."""
        self._ending.set()

    async def aclose(self) -> None:
        """Close the connections to the SuperLink."""
        await self._fleet.aclose()
        await self._health.aclose()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = _Answer(scope, send)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._pass_on(scope, receive, answer)
        except RefusedError as refusal:
            await answer.refuse(refusal)
        except TimeoutError:
            await answer.refuse(RefusedError(504, f"took longer than {REQUEST_SECONDS:.0f} s"))
        except httpx.HTTPError as error:
            await answer.refuse(_upstream_failure(error))
        except _DisconnectedError:
            logger.info("%s went away", answer.asker)

    async def _pass_on(self, scope: Event, receive: Receive, answer: "_Answer") -> None:
        """Judge the head, then let body and answer stream through."""
        method, path = scope["method"], scope["raw_path"]
        if scope["query_string"]:
            raise RefusedError(404, "nothing here takes a query")
        if path == HEALTH and method in ("GET", "HEAD"):
            request = self._health.build_request("GET", HEALTH.decode())
            response = await self._health.send(request, stream=True)
        elif path == ENROLLED and method == "GET":
            self._check_enrolled(scope["headers"])
            await answer.confirm()
            return
        elif FLEET.fullmatch(path) and method == "POST":
            site = self._admission.admit(scope["headers"])
            if path == PULL:
                response = await self._message(scope, receive)
            else:
                response = await self._once(site, scope, receive)
        else:
            raise _no_such_path()
        try:
            await answer.stream(response)
        finally:
            await response.aclose()

    def _check_enrolled(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse who has not signed with an enrolled key, in words that tell strangers nothing."""
        try:
            self._admission.admit(headers)
        except RefusedError as refusal:
            raise _no_such_path() if refusal.status == 401 else refusal from None

    async def _once(self, site: str, scope: Event, receive: Receive) -> httpx.Response:
        path = scope["raw_path"]
        limit = min(self._limit, LONGEST_ANNOUNCEMENT) if path == ANNOUNCE else self._limit
        with SpooledTemporaryFile(max_size=IN_MEMORY) as body:
            request = self._fleet_request(scope, _pieces(body), limit)
            async for piece in self._body(receive, limit):
                body.write(piece)
            size = body.tell()
            body.seek(0)
            if path == ANNOUNCE:
                _check_announcement(site, body.read())
                body.seek(0)
            if path not in STORED:
                return await self._answered(path, request)
            self._traffic.take(site, size)
            try:
                response = await self._answered(path, request)
            except httpx.HTTPError:  # of what is cancelled, the site may have chosen the moment
                self._traffic.give_back(site, size)
                raise
            if not response.is_success or _is_empty(response):  # refused, or there already
                self._traffic.give_back(site, size)
            return response

    async def _answered(self, path: bytes, request: httpx.Request) -> httpx.Response:
        """The SuperLink's answer; a piece of an update waits for its turn."""
        if path not in OBJECTS:
            return await self._send(request)
        async with self._turns:
            response = await self._send(request)
            await response.aread()
        return response

    async def _message(self, scope: Event, receive: Receive) -> httpx.Response:
        """The SuperLink's answer once it has a message for the site, or after `HOLD_SECONDS`.

        No message is taken for a site that has gone: it would not get it.
        """
        body = b"".join([piece async for piece in self._body(receive, LONGEST_QUESTION)])
        gone = asyncio.ensure_future(receive())  # nothing more comes but its going
        ending = asyncio.ensure_future(self._ending.wait())
        wait, last_look = FIRST_LOOK_SECONDS, time.monotonic() + HOLD_SECONDS
        try:
            while True:
                request = self._fleet_request(scope, body, LONGEST_QUESTION)
                response = await self._send(request)
                if not _is_empty(response) or ending.done() or time.monotonic() > last_look:
                    return response
                await response.aclose()
                await asyncio.wait({gone, ending}, timeout=wait, return_when=FIRST_COMPLETED)
                if gone.done():
                    raise _DisconnectedError
                wait = min(1.5 * wait, LONGEST_LOOK_SECONDS)
        finally:
            gone.cancel()
            ending.cancel()

    def _fleet_request(
        self, scope: Event, body: bytes | AsyncIterator[bytes], limit: int
    ) -> httpx.Request:
        """The request as the SuperLink gets it; refused where its head tells no fair length."""
        fields = _passed(scope["headers"])
        names = {name for name, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            raise RefusedError(400, "body with both a length and chunks")
        if int(dict(fields).get(b"content-length", b"0")) > limit:
            raise _too_long(limit)
        path = scope["raw_path"].decode()
        return self._fleet.build_request("POST", path, headers=fields, content=body)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send it; while the SuperLink is being restarted, wait for it.

        A SuperNode that is turned away waits up to twenty seconds before it asks again.
        """
        last_try = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return await self._fleet.send(request, stream=True)
            except httpx.ConnectError:  # nothing of the request has been sent yet
                if time.monotonic() > last_try:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _body(self, receive: Receive, limit: int) -> AsyncIterator[bytes]:
        """Pieces of the body as they come, counted."""
        length, more = 0, True
        while more:
            event = await receive()
            if event["type"] != "http.request":
                raise _DisconnectedError
            length += len(event["body"])
            if length > limit:
                raise _too_long(limit)
            yield event["body"]
            more = event["more_body"]


class _Answer:
    """The answer to one request; knows for the log who asked for what."""

    def __init__(self, scope: Event, send: Send) -> None:
        self.asker = scope["client"][0] if scope["client"] else "?"
        self._question = f"{scope['method'][:8]} {scope['raw_path'][:100]!r}"
        self._send = send
        self._started = False

    async def stream(self, response: httpx.Response) -> None:
        await self._start(response.status_code, _passed(response.headers.raw))
        async for piece in response.aiter_bytes():  # its own encoding is asked for: none
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def confirm(self) -> None:
        """Say yes, and nothing more."""
        await self._start(204, [])
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refusal: RefusedError) -> None:
        """Say no. Within an answer it is too late: nothing more is sent, the server hangs up."""
        logger.warning("%s %s: %d %s", self.asker, self._question, refusal.status, refusal.reason)
        if self._started:
            return
        body = json.dumps({"detail": refusal.reason}).encode()
        length = str(len(body)).encode()
        await self._start(
            refusal.status, [(b"content-type", b"application/json"), (b"content-length", length)]
        )
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, fields: Fields) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": fields})


class _DisconnectedError(Exception):
    """The client has closed the connection before the end of the request."""


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """What a file holds from where it stands, read when it is asked for."""
    while piece := file.read(PIECE):
        yield piece


def _check_announcement(site: str, body: bytes) -> None:
    """Refuse what is not one answer of the site that announces it."""
    reason = why_refused(body, time.time())
    if reason is not None:
        raise RefusedError(403, f"{site}: {reason}")


def _no_such_path() -> RefusedError:
    return RefusedError(404, "no such path")


def _too_long(limit: int) -> RefusedError:
    return RefusedError(413, f"body of more than {limit} bytes")


def _is_empty(response: httpx.Response) -> bool:
    """Whether nothing is said: no message is there, or nothing was stored.

    A protobuf message with nothing in it has no bytes.
    """
    return response.is_success and response.headers.get("content-length") == "0"


def _passed(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    lowered = [(name.lower(), value) for name, value in fields]
    return [(name, v) for name, v in lowered if name in PASSED or name.startswith(b"flwr-")]


def _upstream_failure(error: httpx.HTTPError) -> RefusedError:
    """What a SuperNode is told; it tries again after any of these."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return RefusedError(503, "the SuperLink is not running, or just being restarted")
    if isinstance(error, httpx.PoolTimeout):
        return RefusedError(503, "too many requests at a time")
    if isinstance(error, httpx.TimeoutException):
        return RefusedError(504, "the SuperLink does not answer")
    return RefusedError(502, "the connection to the SuperLink broke off")
