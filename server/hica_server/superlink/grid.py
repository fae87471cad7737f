"""A run's grid: messages to the sites, and their replies."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

from hica.errors import FederationError
from hica.wire.packing import pack
from hica.wire.records import payload_bytes
from hica.wire.signature import content_hash, sign, with_signature
from hica_server.superlink.reply import fetch_reply
from hica_server.superlink.upload import Upload, most_reply_bytes

POLL_SECONDS = 0.2
"""Between two looks for replies; Flower's own grid takes three seconds."""
PUSHES = 3
"""How often messages are handed over, where the SuperLink is restarted meanwhile."""
_UNAVAILABLE = (
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
)


class _LostError(FederationError):
    """The SuperLink does not take an object that was announced to it."""


@dataclass
class _Sent:
    """A message that has been sent."""

    message: Message
    """Without its content."""
    most_bytes: int
    """Limit of its reply."""
    upload: Upload | None = None
    """The reply, once it is announced."""


class PromptGrid(Grid):
    """A run's grid that looks for replies often, and tells silence from failure.

    Where Flower puts an error in the place of a reply that cannot come any more (its node has
    gone, or a restarted SuperLink has lost it), there is no reply: that site is missing.

    A site may send what it likes, and in Flower's grid a reply that cannot be read takes all others
    with it; so replies are fetched here, each by itself, and one that is of no use becomes an error
    of its site.

    Every message is signed with `key`. Before it is sent, `note` hears how many bytes the answer of
    each site may have, by the sites' names.
    """

    def __init__(
        self,
        grid: Grid,
        key: EllipticCurvePrivateKey,
        note: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        self._grid = cast(HttpGrid, grid)
        self._key, self._note = key, note
        self._open: dict[str, _Sent] = {}
        self._names: dict[int, str] = {}

    def connected(self) -> dict[str, int]:
        """Node of every connected site, by the name it was registered for."""
        nodes = {info.name: info.node_id for info in self._grid.get_nodes()}
        self._names |= {node: name for name, node in nodes.items()}
        return nodes

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
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
        if not messages:
            return []
        limits = [most_reply_bytes(payload_bytes(message.content)) for message in messages]
        self._note_limits(messages, limits)
        ids, sent = self._pushed_whole(_sealed(messages, self._key))
        for message in messages:
            message.content = RecordDict()
        for message_id, message, limit in zip(ids, sent, limits, strict=True):
            message.content = RecordDict()
            self._open[message_id] = _Sent(message, limit)
        self._open.pop("", None)
        return ids

    def _note_limits(self, messages: list[Message], limits: list[int]) -> None:
        """Tell how much each site may send, before it can begin to."""
        nodes = [message.metadata.dst_node_id for message in messages]
        if not self._names.keys() >= set(nodes):
            self.connected()
        total: Counter[str] = Counter()
        for node, limit in zip(nodes, limits, strict=True):
            total[self._names.get(node, "")] += limit
        self._note(total)

    def _pushed_whole(self, messages: list[Message]) -> tuple[list[str], list[Message]]:
        """As `_pushed`, beside what was sent: new messages, where the SuperLink was restarted.

        It then knows nothing any more of the objects that were announced to it.
        """
        for _ in range(PUSHES - 1):
            with contextlib.suppress(_LostError):
                return self._pushed(messages), messages
            messages = [_again(message) for message in messages]
        return self._pushed(messages), messages

    def _pushed(self, messages: list[Message]) -> list[str]:
        """Announce messages, then hand over their objects; returns the messages' ids.

        One object after the other: Flower's grid makes copies of all before it sends the first.
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
        request = PushObjectRequest(
            node=self._grid.node,
            run_id=self._grid.run.run_id,
            object_id=object_id,
            object_content=pushed.deflate(),
            session_id=session,
        )
        if not self._grid._runtime_client.PushObject(request).stored:
            raise _LostError(
                f"the SuperLink did not store object {object_id[:12]} of a message; "
                "see service/logs/superlink.log and start the run again"
            )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """The replies that are there, each fetched when it is asked for; waits for none."""
        awaited = [each for each in message_ids if each in self._open]
        self._learn_announced([each for each in awaited if self._open[each].upload is None])
        for message_id in awaited:
            yield from self._fetched(message_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and yield the replies as they come, none held while the next one comes.

        `timeout` is in seconds until the deadline; None waits for every reply.
        """
        ids = list(filter(None, self.push_messages(messages)))
        return self._replies(ids, None if timeout is None else time.monotonic() + timeout)

    def _replies(self, ids: list[str], ends: float | None) -> Iterator[Message]:
        """Replies to the messages `ids`, until the deadline."""
        while True:
            yield from filter(_is_reply, self.pull_messages(ids))
            ids = [each for each in ids if each in self._open]
            if not ids or (ends is not None and time.monotonic() >= ends):
                break
            time.sleep(POLL_SECONDS)
        for late in ids:
            del self._open[late]

    def _learn_announced(self, ids: list[str]) -> None:
        """Note which messages a reply has been announced to; the SuperLink says so once only."""
        if not ids:
            return
        told = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=ids))
        for reply, tree in zip(told.messages_list, told.message_object_trees, strict=True):
            sent = self._open.get(reply.metadata.reply_to_message_id)
            if sent is not None:
                objects = [each.object_id for each in iterate_object_tree(tree)]
                sent.upload = Upload(objects, sent.most_bytes)

    def _fetched(self, message_id: str) -> Iterator[Message]:
        """The reply to a message, if all of it is there."""
        sent = self._open[message_id]
        if sent.upload is None:
            return
        content = fetch_reply(sent.upload, self._object)
        if content:
            del self._open[message_id]
            self._grid._runtime_client.ConfirmMessageReceived(  # the SuperLink may forget it
                ConfirmMessageReceivedRequest(
                    node=self._grid.node,
                    run_id=self._grid.run.run_id,
                    message_object_id=sent.upload.root,
                )
            )
            # Of what a reply tells about itself nothing is used: the SuperLink has checked that
            # it was announced by the node that was asked, but not what its objects say.
            yield Message(content.pop(), reply_to=sent.message)

    def _object(self, object_id: str) -> bytes | None:
        """Content of an object; empty while it is on its way, None where it cannot come."""
        request = PullObjectRequest(
            node=self._grid.node, run_id=self._grid.run.run_id, object_id=object_id
        )
        pulled = self._grid._runtime_client.PullObject(request)
        return pulled.object_content if pulled.object_found else None


def _is_reply(message: Message) -> bool:
    """Whether a reply says more than that there will be no reply."""
    return not (message.has_error() and message.error.code in _UNAVAILABLE)


def _again(message: Message) -> Message:
    """A new message of the same content, to the same site."""
    told = message.metadata
    again = Message(message.content, told.dst_node_id, told.message_type, group_id=told.group_id)
    again.metadata.__dict__["_run_id"] = told.run_id  # as it was signed
    return again


def _sealed(messages: list[Message], key: EllipticCurvePrivateKey) -> list[Message]:
    """The messages, each with a parcel and its own signature in the content.

    A content that many sites get is hashed and packed once.
    """
    contents = {id(message.content): message.content for message in messages}
    sealed = {name: (content_hash(it), pack(it)) for name, it in contents.items()}
    for message in messages:
        hashed, packed = sealed[id(message.content)]
        message.content = with_signature(packed, sign(key, hashed, message.metadata))
    return messages
