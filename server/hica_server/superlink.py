"""The coordinator's only contact with Flower's internals: commands, Control API, grid.

Flower 1.41 has no public way to start a run or to register a node, and its grid looks for answers
every three seconds. What of its private parts is used instead is all in this file;
`tests/unit/hica_server/test_flower_internals.py` fails when one of them has moved.
"""

from __future__ import annotations

import os
import ssl
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import httpx
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode, Status
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.run import Run

from hica.bundle import BUNDLE_SHA256, build
from hica.errors import FederationError
from hica.messages import payload_bytes
from hica.parcel import pack, unpack
from hica_server.settings import Folder

LOOPBACK = "127.0.0.1"
HOME_VARIABLE = "HICA_FOLDER"
"""Tells the ServerApp whose coordinator it is."""
LARGE = 16 * 2**20
"""Bytes of a message whose answers are looked for one by one."""
POLL_SECONDS = 0.2
"""Between two looks for answers; Flower's own grid takes three seconds."""
TIMEOUT_SECONDS = 10.0

Request = TypeVar("Request")
Response = TypeVar("Response")

# --- Processes -----------------------------------------------------------------------------------


def superlink_command(folder: Folder, port: int, health_port: int) -> list[str]:
    """The SuperLink: everything on loopback, its state on disk, nodes authenticated.

    With process isolation it starts no ServerApp itself, so that a run outlives it; without the
    secret nobody else can take one over. It installs nothing, whatever a bundle asks for.

    Args:
        folder: The coordinator's.
        port: Of all its HTTP interfaces.
        health_port: Of Flower's gRPC health service; 0: none.
    """
    health = ["--health-server-address", f"{LOOPBACK}:{health_port}"] if health_port else []
    return [
        *_program("flower-superlink"),
        *("--host", LOOPBACK, "--port", str(port)),
        *health,
        *("--ssl-ca-certfile", str(folder.ca_certificate)),
        *("--ssl-certfile", str(folder.certificate)),
        *("--ssl-keyfile", str(folder.key)),
        "--enable-supernode-auth",
        *("--database", str(folder.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(folder.secret)),
        "--disable-runtime-dependency-installation",
    ]


def superexec_command(folder: Folder, port: int) -> list[str]:
    """The superexec, which starts a ServerApp for every run of the SuperLink on `port`."""
    return [
        *_program("flower-superexec"),
        *("--runtime-api-address", f"{LOOPBACK}:{port}"),
        *("--root-certificates", str(folder.ca_certificate)),
        *("--superexec-auth-secret-file", str(folder.secret)),
    ]


def environment(folder: Folder) -> dict[str, str]:
    """What SuperLink, superexec and ServerApp find set, beside what this process has."""
    scripts = sysconfig.get_path("scripts")
    exempt = ",".join(filter(None, [os.environ.get("NO_PROXY"), LOOPBACK, "localhost"]))
    return {
        HOME_VARIABLE: str(folder.root),
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),  # flwr-serverapp
        "NO_PROXY": exempt,
        "no_proxy": exempt,
        "FLWR_HOME": str(folder.flower_home),
        # Memory of the pieces of an update goes back to the system, not to a heap of each thread.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(2**18),
        "FLWR_LOG_LEVEL": "WARNING",  # below, the SuperLink logs every look we take at it
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def _program(name: str) -> list[str]:
    """A command of Flower's, installed beside this Python."""
    return [str(Path(sysconfig.get_path("scripts")) / name)]


# --- Control API ---------------------------------------------------------------------------------


class UnreachableError(Exception):
    """The SuperLink does not answer at this moment: it is starting, or too busy."""


@dataclass(frozen=True)
class Node:
    """A registered SuperNode.

    Attributes:
        id: Flower's number of it.
        name: The site it was registered for.
        public_key: PEM.
        online: Whether it has sent a heartbeat within Flower's patience (60 s).
        since: Time (ISO 8601) of its last change between online and offline; "" before the first.
    """

    id: int
    name: str
    public_key: bytes
    online: bool
    since: str


@dataclass(frozen=True)
class RunStatus:
    """Where a Flower run stands.

    Attributes:
        finished: Whether it has ended, however it did.
        details: Why it failed, in Flower's words; "" where it did not.
    """

    finished: bool
    details: str


class Control:
    """Client of the SuperLink's Control API, which answers on loopback only.

    Every method raises `UnreachableError` where the SuperLink does not answer, and
    `FederationError` where it refuses.
    """

    def __init__(self, folder: Folder, port: int) -> None:
        self._client = ControlHttpClient(
            f"https://{LOOPBACK}:{port}",
            interceptors=[RuntimeVersionHttpInterceptor(component_name="hica-server")],
            verify=ssl.create_default_context(cafile=str(folder.ca_certificate)),
            timeout=TIMEOUT_SECONDS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection: as long as it is open, the SuperLink does not end in order."""
        self._client.close()

    def register(self, name: str, public_key: bytes) -> int:
        """Let the SuperNode with this key (PEM) in; returns its node id."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(_called(self._client.RegisterNode, request).node_id)

    def unregister(self, node: int) -> None:
        """Let a SuperNode in no longer."""
        _called(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node))

    def nodes(self) -> list[Node]:
        """All registered SuperNodes, connected or not."""
        answer = _called(self._client.ListNodes, ListNodesRequest())
        return [
            Node(
                info.node_id,
                info.name,
                info.public_key,
                info.status == NodeStatus.ONLINE,
                max(info.last_activated_at, info.last_deactivated_at),
            )
            for info in answer.nodes_info
            if info.status != NodeStatus.UNREGISTERED
        ]

    def start_run(self, study_sha256: str) -> int:
        """Start a run of the bundle for a study; returns its id."""
        bundle = Fab(BUNDLE_SHA256, build(), {})
        config = user_config_to_proto({"study": study_sha256})
        request = StartRunRequest(fab=fab_to_proto(bundle), override_config=config)
        return int(_called(self._client.StartRun, request).run_id)

    def run_status(self, run: int) -> RunStatus:
        """Where a run stands."""
        answer = _called(self._client.ListRuns, ListRunsRequest(run_id=run))
        status = answer.run_dict[run].status
        return RunStatus(status.status == Status.FINISHED, status.details)

    def unfinished_runs(self) -> list[int]:
        """Runs that have not ended; after a crash, those whose ServerApp is gone are among them."""
        answer = _called(self._client.ListRuns, ListRunsRequest())
        runs = answer.run_dict.items()
        return [run for run, info in runs if info.status.status != Status.FINISHED]

    def stop_run(self, run: int) -> None:
        """End a run; the SuperLink then refuses whatever its ServerApp asks for."""
        _called(self._client.StopRun, StopRunRequest(run_id=run))


def _called(method: Callable[[Request], Response], request: Request) -> Response:
    """Call the Control API; see `Control` for what it raises."""
    try:
        return method(request)
    except httpx.TransportError as error:
        raise UnreachableError(str(error)) from error
    except httpx.HTTPStatusError as error:
        answer = error.response
        if answer.is_server_error:
            raise UnreachableError(f"status {answer.status_code}") from error
        raise FederationError(
            f"the SuperLink refuses {type(request).__name__}: {answer.text[:500]}; "
            "see service/logs/superlink.log"
        ) from error


# --- Grid ----------------------------------------------------------------------------------------

_UNAVAILABLE = (
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
)


class PromptGrid(Grid):
    """A run's grid that looks for answers often, and tells silence from failure.

    Where Flower puts an error in the place of an answer that cannot come any more (its node has
    gone, or a restarted SuperLink has lost it), there is no answer: that site is missing.

    Args:
        grid: The grid that Flower made for the run.
        poll_seconds: Between two looks.
    """

    def __init__(self, grid: Grid, poll_seconds: float = POLL_SECONDS) -> None:
        self._grid = grid
        self._poll_seconds = poll_seconds

    def connected(self) -> dict[str, int]:
        """Node of every connected site, by the name it was registered for."""
        return {info.name: info.node_id for info in self._grid.get_nodes()}

    def set_run(self, run: Run) -> None:
        """The run that messages belong to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """That run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; `flwr.app.Message` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes connected now."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; returns their ids, "" for one that the SuperLink did not take."""
        return self._grid.push_messages(_packed(list(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers that have come."""
        answers = list(self._grid.pull_messages(message_ids))
        for answer in answers:
            if answer.has_content():
                answer.content = unpack(answer.content)
        return answers

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and yield the answers as they come.

        Args:
            messages: One for each site.
            timeout: Seconds until the deadline; None waits for every answer.
        """
        messages = list(messages)
        large = any(payload_bytes(message.content) > LARGE for message in messages)
        ids = set(filter(None, self.push_messages(messages)))
        return self._answers(ids, large, None if timeout is None else time.monotonic() + timeout)

    def _answers(self, awaited: set[str], large: bool, ends: float | None) -> Iterator[Message]:
        """Answers to the messages `awaited`, until the deadline.

        Large ones are taken one at a time, and none is held here while the next one comes.
        """
        while awaited:
            for ids in [{each} for each in awaited] if large else [set(awaited)]:
                answers = list(self.pull_messages(ids))
                awaited -= {answer.metadata.reply_to_message_id for answer in answers}
                while answers:
                    if _is_unavailable(answers[0]):
                        del answers[0]
                    else:
                        yield answers.pop(0)
            if not awaited or (ends is not None and time.monotonic() >= ends):
                return
            time.sleep(self._poll_seconds)


def _is_unavailable(answer: Message) -> bool:
    """Whether it only says that there will be no answer."""
    return answer.has_error() and answer.error.code in _UNAVAILABLE


def _packed(messages: list[Message]) -> list[Message]:
    """The messages, with a parcel in each content; one that many sites get is packed once."""
    contents = {id(message.content): message.content for message in messages}
    packed = {key: pack(content) for key, content in contents.items()}
    for message in messages:
        message.content = packed[id(message.content)]
    return messages
