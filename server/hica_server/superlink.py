"""The coordinator's only contact with Flower's internals: commands, Control API, grid.

Flower 1.41 has no public way to start a run or to register a node, and its grid looks for answers
every three seconds. What of its private parts is used instead is all in this file;
`tests/unit/hica_server/test_flower_internals.py` fails when one of them has moved.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self, TypeVar, cast

import httpx
from flwr.app import Array, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode, Status
from flwr.common.serde import fab_to_proto, message_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

from hica.deployment.bundle import BUNDLE_SHA256, build
from hica.errors import FederationError
from hica.wire.packing import pack, unpack
from hica.wire.records import payload_bytes
from hica_server.settings import Folder

LOOPBACK = "127.0.0.1"
HOME_VARIABLE = "HICA_FOLDER"
"""Tells the ServerApp whose coordinator it is."""
POLL_SECONDS = 0.2
"""Between two looks for answers; Flower's own grid takes three seconds."""
MOST_OBJECTS = 2048
"""Of an answer: each is a request of its own. A tower of a thousand layers takes no more."""
MOST_SHARE, MOST_BEYOND = 1.5, 16 * 2**20
"""Bytes of an answer, as a share of those of the question, and beside it: header and parcel."""
TIMEOUT_SECONDS = 10.0
DATABASE = (
    ("busy_timeout", "25000"),  # milliseconds; who asks waits for 30 s
    ("cache_size", "-8000"),  # kB of each connection: updates are read once
    ("mmap_size", "0"),  # mapped pages of an update would count as memory of the process
)
"""Settings of SQLite, after Flower's own."""

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
        *(sys.executable, "-m", "hica_server.superlink"),
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


def main() -> NoReturn:
    """Entry point of the SuperLink's process: `flower-superlink`, with another use of its database.

    A transaction of an update on a busy disk takes longer than Flower has the others wait; the
    request of one that gives up fails, and with it a SuperNode or the run.
    """
    from flwr.supercore import sql_mixin
    from flwr.supercore.constant import SQLITE_PRAGMAS
    from flwr.superlink.cli import flower_superlink

    vars(sql_mixin)["SQLITE_PRAGMAS"] = (*SQLITE_PRAGMAS, *DATABASE)
    flower_superlink()
    sys.exit()


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

    A site may send what it likes. Flower's grid waits for hours for an answer that is announced
    and never uploaded, and one that cannot be read takes all others with it; so answers are
    fetched here, each by itself, and one that is of no use becomes an error of its site.

    Args:
        grid: The grid that Flower made for the run.
        poll_seconds: Between two looks.
    """

    def __init__(self, grid: Grid, poll_seconds: float = POLL_SECONDS) -> None:
        self._grid = cast(HttpGrid, grid)
        self._poll_seconds = poll_seconds
        self._open: dict[str, _Question] = {}

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
        """Send messages; returns their ids, "" for one that the SuperLink did not take.

        What was sent is not held: the messages are left without their content.
        """
        messages = list(messages)
        sizes = [payload_bytes(message.content) for message in messages]
        ids = self._pushed(_packed(messages)) if messages else []
        for message_id, message, size in zip(ids, messages, sizes, strict=True):
            message.content = RecordDict()
            self._open[message_id] = _Question(message, int(MOST_SHARE * size) + MOST_BEYOND)
        self._open.pop("", None)
        return ids

    def _pushed(self, messages: list[Message]) -> list[str]:
        """Announce messages, then hand over their objects; returns the messages' ids.

        One object after the other: Flower's grid makes copies of all before it sends the first.

        Raises:
            FederationError: The SuperLink does not store an object.
        """
        objects: dict[str, InflatableObject] = {}
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                objects |= get_all_nested_objects(message)
            announced = self._grid._runtime_client.PushMessages(
                PushAppMessagesRequest(
                    messages_list=[
                        message_to_proto(remove_content_from_message(each)) for each in messages
                    ],
                    message_object_trees=[get_object_tree(each) for each in messages],
                )
            )
            wanted = set(announced.objects_to_push)
            for object_id in [each for each in objects if each in wanted]:
                self._push_object(object_id, objects.pop(object_id), announced.session_id)
        return list(announced.message_ids)

    def _push_object(self, object_id: str, pushed: InflatableObject, session: str) -> None:
        """Hand over one object."""
        request = PushObjectRequest(
            node=self._grid.node,
            run_id=self._grid.run.run_id,
            object_id=object_id,
            object_content=pushed.deflate(),
            session_id=session,
        )
        if not self._grid._runtime_client.PushObject(request).stored:
            raise FederationError(
                f"the SuperLink did not store object {object_id[:12]} of a message; "
                "see service/logs/superlink.log and start the run again"
            )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """The answers that are there, each fetched when it is asked for; waits for none."""
        awaited = [each for each in message_ids if each in self._open]
        self._learn_announced([each for each in awaited if self._open[each].upload is None])
        for message_id in awaited:
            yield from self._fetched(message_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and yield the answers as they come, none held while the next one comes.

        Args:
            messages: One for each site.
            timeout: Seconds until the deadline; None waits for every answer.
        """
        ids = list(filter(None, self.push_messages(messages)))
        return self._answers(ids, None if timeout is None else time.monotonic() + timeout)

    def _answers(self, ids: list[str], ends: float | None) -> Iterator[Message]:
        """Answers to the messages `ids`, until the deadline."""
        while True:
            yield from filter(_is_answer, self.pull_messages(ids))
            ids = [each for each in ids if each in self._open]
            if not ids or (ends is not None and time.monotonic() >= ends):
                break
            time.sleep(self._poll_seconds)
        for late in ids:
            del self._open[late]

    def _learn_announced(self, ids: list[str]) -> None:
        """Note which messages an answer has been announced to; the SuperLink says so once only."""
        if not ids:
            return
        told = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=ids))
        for answer, tree in zip(told.messages_list, told.message_object_trees, strict=True):
            question = self._open.get(answer.metadata.reply_to_message_id)
            if question is not None:
                objects = [each.object_id for each in iterate_object_tree(tree)]
                question.upload = _Upload(objects, question.most_bytes)

    def _fetched(self, message_id: str) -> Iterator[Message]:
        """The answer to a message, if all of it is there."""
        question = self._open[message_id]
        if question.upload is None:
            return
        said = _said(question.upload, self._object)
        if said:
            del self._open[message_id]
            self._confirm(question.upload.root)
            # Of what an answer tells about itself nothing is used: the SuperLink has checked that
            # it was announced by the node that was asked, but not what its objects say.
            yield Message(said.pop(), reply_to=question.message)

    def _object(self, object_id: str) -> bytes | None:
        """Content of an object; empty while it is on its way, None where it cannot come."""
        request = PullObjectRequest(
            node=self._grid.node, run_id=self._grid.run.run_id, object_id=object_id
        )
        answer = self._grid._runtime_client.PullObject(request)
        return answer.object_content if answer.object_found else None

    def _confirm(self, root: str) -> None:
        """Let the SuperLink forget a message."""
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=root
            )
        )


def _is_answer(message: Message) -> bool:
    """Whether it says more than that there will be no answer."""
    return not (message.has_error() and message.error.code in _UNAVAILABLE)


def _packed(messages: list[Message]) -> list[Message]:
    """The messages, with a parcel in each content; one that many sites get is packed once."""
    contents = {id(message.content): message.content for message in messages}
    packed = {key: pack(content) for key, content in contents.items()}
    for message in messages:
        message.content = packed[id(message.content)]
    return messages


# --- Answers -------------------------------------------------------------------------------------


class _UselessError(Exception):
    """An answer that is not fetched to its end.

    Args:
        reason: Why.
        code: What kind of an error it becomes.
    """

    def __init__(self, reason: str, code: int = ErrorCode.UNKNOWN) -> None:
        super().__init__(reason)
        self.error = Error(code, reason)


class _Upload:
    """An announced answer, whose objects reach the SuperLink one after the other.

    The one that holds all others is pushed last, and is asked for first: a look at an upload that
    is stuck costs one small request. What has been seen is pulled again only when all have been:
    in whatever order a site holds them back, no object is pulled more than twice.

    Args:
        objects: Ids in the order in which they are pushed.
        most_bytes: That they may have together.
    """

    def __init__(self, objects: Iterable[str], most_bytes: int) -> None:
        self._objects = list(dict.fromkeys(objects))
        self._unseen = list(self._objects)
        self._seen_bytes = 0
        self.root = self._objects[-1]
        self.most_bytes = most_bytes

    def contents(self, pull: Callable[[str], bytes | None]) -> dict[str, bytes]:
        """All objects; none while one is on its way.

        Raises:
            _UselessError: They are too many or too large, or one cannot come.
        """
        if len(self._objects) > MOST_OBJECTS:
            raise _UselessError(f"the answer has more than {MOST_OBJECTS} objects")
        contents = {}
        while self._unseen:
            content = _found(pull(self._unseen[-1]))
            if not content:
                return {}
            self._seen_bytes += len(content)
            _check_size(self._seen_bytes, self.most_bytes)
            contents[self._unseen.pop()] = content
        seen_before = [each for each in self._objects if each not in contents]
        return contents | {each: _found(pull(each)) for each in seen_before}


@dataclass
class _Question:
    """A message that has been sent.

    Attributes:
        message: Without its content.
        most_bytes: That the answer may have.
        upload: The answer, once it is announced.
    """

    message: Message
    most_bytes: int
    upload: _Upload | None = None


def _found(content: bytes | None) -> bytes:
    """The content of an object that the SuperLink knows."""
    if content is None:  # it drops what a site has not uploaded for three minutes
        code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
        raise _UselessError("the answer was never uploaded to its end", code)
    return content


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise _UselessError(f"the answer has more than {most} bytes")


def _said(upload: _Upload, pull: Callable[[str], bytes | None]) -> list[RecordDict | Error]:
    """What an answer says, or why it is of no use; nothing while it is on its way.

    A list, from which it can be taken without being held here.
    """
    try:
        contents = upload.contents(pull)
        return [_read(contents, upload)] if contents else []
    except _UselessError as useless:
        return [useless.error]


def _read(contents: dict[str, bytes], upload: _Upload) -> RecordDict | Error:
    """What an answer says.

    Raises:
        _UselessError: Flower cannot make a message of it.
    """
    try:
        uses = _uses(contents)
        _check_size(_size_when_built(contents), upload.most_bytes)
        message = cast(
            Message, inflate_object_from_contents(upload.root, contents, objects=_Objects(uses))
        )
        return message.error if message.has_error() else unpack(message.content)
    except _UselessError:
        raise
    except Exception as error:  # whatever Flower stumbles over in bytes of a site's making
        raise _UselessError(f"the answer cannot be read: {type(error).__name__}") from None


class _Objects(dict[str, InflatableObject]):
    """Flower's store of what it has made of an answer's objects.

    It would hold every piece of every array until the message is whole, which is the update a
    second time. What only one other object is made of is not looked up again, and not kept.

    Args:
        uses: How many objects are made of each.
    """

    def __init__(self, uses: Mapping[str, int]) -> None:
        super().__init__()
        self._uses = uses

    def __setitem__(self, object_id: str, made: InflatableObject) -> None:
        if self._uses.get(object_id, 0) > 1:
            super().__setitem__(object_id, made)


def _uses(contents: dict[str, bytes]) -> Counter[str]:
    """How many objects are made of each."""
    return Counter(
        child
        for content in contents.values()
        for child in get_object_head_values_from_object_content(content)[1]
    )


def _size_when_built(contents: dict[str, bytes]) -> int:
    """Bytes of all arrays; one may name the same piece of data a million times."""
    size = 0
    for content in contents.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == Array.__qualname__:
            pieces = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            size += sum(len(contents[children[piece]]) for piece in pieces)
    return size


if __name__ == "__main__":
    main()
