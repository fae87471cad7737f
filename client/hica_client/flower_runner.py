"""The warm runner: has the installed app answer what the SuperNode received, and nothing else.

    python -m hica_client.flower_runner site.toml --runtime 127.0.0.1:9094 --secret secret

Flower's own executor unpacks the coordinator's bundle and runs the code it finds there, in a new
process for every message. This one never unpacks a bundle. It compares it with the one this
version was released with and calls the installed `hica_client.app` behind the site's guard, in one
process that keeps images and model in memory.

SIGTERM ends it at once and no handler delays that: whatever must outlive the process is on disk
before an answer leaves, so kill -9 does no more harm.

This is the client's only module that uses Flower's internals. Which ones, and that they are still
what they were, is tested in `tests/unit/hica_client/test_flower_internals.py`.
"""

import argparse
import hashlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message

from hica.deployment.bundle import APP_ID, BUNDLE_SHA256
from hica.deployment.kit import read_coordinator_key
from hica.errors import HicaError
from hica.printable import log_to_stderr, plain
from hica.storage import keep_private
from hica.wire.packing import pack, unpack
from hica_client.audit import Event, append
from hica_client.site import load_site

logger = logging.getLogger("hica.client")

TASK_TYPE = "flwr-clientapp"
"""The only work that is taken: a bundle may also name agents, models and connectors."""

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
"""The only call that the SuperNode answers to whoever knows the secret."""

POLL_SECONDS = 0.25
"""Between two looks for work; a look costs the two processes some milliseconds."""

HEARTBEAT_SECONDS = 2.0
"""Far below the 30 s after which the SuperNode gives a task up, to learn soon that it is gone."""

TASK_LOST = 75
"""Exit code of a runner that left a task whose SuperNode was gone (EX_TEMPFAIL)."""

Answer = Callable[[Message, Context, str, bytes], Message]
"""(message, context, app id, bundle) → reply."""


def supernode_arguments(
    server: str, ca_certificate: Path, key: Path, runtime: str, secret: Path
) -> list[str]:
    """Arguments of `flower-supernode` for a node that leaves the work to this runner.

    `server` is the coordinator's host:port, and no certificate but of the start kit's CA is
    accepted there. `runtime` is host:port on loopback, where the runner asks for work and shows the
    secret that is in the file.
    """
    host, _, port = runtime.rpartition(":")
    return [
        *("--superlink", server),
        *("--root-certificates", str(ca_certificate)),
        *("--auth-supernode-private-key", str(key)),
        *("--isolation", "process"),
        *("--host", host, "--port", port),
        *("--superexec-auth-secret-file", str(secret)),
    ]


def deactivate(server: str, ca_certificate: Path, key: EllipticCurvePrivateKey, node: int) -> None:
    """Tell the coordinator that a node is gone, as the node itself does when it ends orderly.

    Without it a killed node counts as connected for another minute: it may not connect again, and
    what it was asked is waited for. `server` is the coordinator's host:port, `key` the site's
    private key, with which the node is registered.

    Raises:
        httpx.HTTPStatusError: The coordinator says no: 401 where the key is not registered for
            this node or the clocks differ, 412 where the node does not count as connected.
        httpx.TransportError: It cannot be reached.
    """
    with FleetHttpClient(
        f"https://{server}",
        interceptors=[NodeAuthHttpInterceptor(key, key.public_key())],
        verify=ssl.create_default_context(cafile=ca_certificate),
        timeout=5.0,  # seconds
    ) as coordinator:
        coordinator.DeactivateNode(DeactivateNodeRequest(node_id=node))


def signed_headers(key: EllipticCurvePrivateKey) -> dict[str, str]:
    """Headers by which the coordinator knows that a request of this moment is of a site's key."""
    request = httpx.Request("GET", "https://coordinator")
    context = ProtobufRequestContext("", DeactivateNodeRequest(), request)  # none of it is sent
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(context, lambda _: httpx.Response(204))
    return {name: value for name, value in request.headers.items() if name.startswith("flwr-")}


def refusal(app_id: str, bundle: bytes) -> str | None:
    """Why a bundle is not the one of this version of HiCA; None where it is."""
    found = hashlib.sha256(bundle).hexdigest()
    if app_id == APP_ID and found == BUNDLE_SHA256:
        return None
    return (
        f"the bundle {app_id[:64]!r} ({found[:12]}) is not {APP_ID!r} ({BUNDLE_SHA256[:12]}), the "
        "only one this site answers: install the same version of hica on both sides"
    )


def local_app(site_file: Path) -> Answer:
    """The installed app behind the site's guard, for our own bundle only.

    Raises:
        ConfigurationError: The site file or its start kit cannot be used.
    """
    # Here, because they load torch: `hica-client run` only needs the rest of this module.
    from hica_client.app import app
    from hica_client.guard import Guard

    site = load_site(site_file)
    guard = Guard(site, read_coordinator_key(site.federation.kit))

    def answer(message: Message, context: Context, app_id: str, bundle: bytes) -> Message:
        reason = refusal(app_id, bundle)
        if reason is not None:
            kind, run_id = message.metadata.message_type[:64], message.metadata.run_id
            logger.warning("%r refused: %s", kind, reason)
            append(site.audit_log, Event("application", "refused", reason, kind, run_id=run_id))
            return Message(Error(ErrorCode.INVALID_FAB, reason), reply_to=message)
        context.node_config = {"site": str(site_file.resolve())}
        return guard.answer(message, context, app)

    return answer


def serve(runtime: str, secret: bytes, answer: Answer) -> NoReturn:
    """Answer task after task; where the SuperNode is away, wait until it is back.

    `runtime` is host:port of the SuperNode on loopback, to which the secret is shown with every
    look for work. What `answer` raises is told to the coordinator by type only.
    """
    proof = SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods=frozenset({ACQUIRE})
    )
    request = AcquireTaskRequest(supported_task_types=[TASK_TYPE])
    connected = False
    with _supernode(runtime, proof) as supernode:
        while True:
            try:
                token = supernode.AcquireTask(request).token
            except httpx.TransportError as error:
                if connected:
                    logger.info("the SuperNode is gone, waiting for it: %s", error)
                connected, token = False, ""
            else:
                if not connected:
                    logger.info("connected to the SuperNode on %s", runtime)
                connected = True
            if token:
                work(runtime, token, answer)
            else:
                time.sleep(POLL_SECONDS)


def work(runtime: str, token: str, answer: Answer) -> None:
    """Fetch a task's message, answer it and hand the answer over; see `serve`.

    Raises:
        Exception: The task could not be fetched or handed over although the SuperNode is there.
            It may then wait for the rest of an answer for ever: only its restart helps.
    """
    with _supernode(runtime, RuntimeTokenHttpInterceptor(token)) as supernode:
        try:
            with heartbeats(supernode, leave):
                message, context, run, bundle = pull_task_input(supernode)
                if message.has_content():
                    message.content = unpack(message.content)
                reply = answered(answer, message, context, run.fab_id, bundle.content)
                if reply.has_content():
                    reply.content = pack(reply.content)
                push_message(supernode, reply, context)
            # Without the context: the site keeps its state on disk, not in the SuperNode.
            supernode.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED))
        except httpx.HTTPError as error:
            if not _is_gone(error):
                raise
            logger.warning("a task is dropped, the SuperNode that gave it is gone: %s", error)


def answered(
    answer: Answer, message: Message, context: Context, app_id: str, bundle: bytes
) -> Message:
    """The reply to a message, whatever the app does."""
    try:
        return answer(message, context, app_id, bundle)
    except Exception as error:
        logger.exception("the answer to a %s failed", message.metadata.message_type)
        # The text of an unforeseen error may quote data: it stays in the site's own log.
        reason = f"{type(error).__name__} at the site; the log of its runner says more"
        code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return Message(Error(code, reason), reply_to=message)


@contextmanager
def heartbeats(supernode: RuntimeHttpClient, lost: Callable[[], None]) -> Iterator[None]:
    """Tell the SuperNode every few seconds that its task is being worked on.

    `lost` is called, from another thread, once no SuperNode knows the task any more.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            if not _is_awaited(supernode):
                lost()
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def leave() -> NoReturn:
    """End the process, and with it a computation that has no other way to be stopped."""
    logger.warning("the SuperNode that gave the task is gone: this runner ends for the next one")
    os._exit(TASK_LOST)


def _is_awaited(supernode: RuntimeHttpClient) -> bool:
    """Whether the SuperNode still waits for the answer to the task."""
    try:
        return supernode.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
    except httpx.HTTPError as error:
        return not _is_gone(error)


def _is_gone(error: httpx.HTTPError) -> bool:
    """Whether nobody listens any more, or only a SuperNode that does not know the task's token."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.UNAUTHORIZED
    return isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)


def _supernode(runtime: str, interceptor: ProtobufClientInterceptor) -> RuntimeHttpClient:
    """A client of the SuperNode; without Flower's retries, which end the process on a 401."""
    return RuntimeHttpClient.from_server_address(
        server_address=runtime,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=TASK_TYPE), interceptor],
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `python -m hica_client.flower_runner`."""
    parser = argparse.ArgumentParser(prog="hica_client.flower_runner", description=__doc__)
    parser.add_argument("site", type=Path, help="the site file")
    parser.add_argument("--runtime", required=True, help="host:port of the SuperNode on loopback")
    parser.add_argument("--secret", type=Path, required=True, help="file with the shared secret")
    options = parser.parse_args(arguments)
    keep_private()
    log_to_stderr("%(levelname)s %(message)s")
    logging.getLogger("hica").setLevel(logging.INFO)
    try:
        answer = local_app(options.site)
    except HicaError as error:
        parser.exit(error.exit_code, plain(f"error: {error}\n"))
    serve(options.runtime, options.secret.read_bytes(), answer)


if __name__ == "__main__":
    main()
