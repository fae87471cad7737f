"""InProcessGrid: a whole federation in one process, under the same ServerApp and ClientApp.

Flower's own simulation starts Ray (13 s before the first round); this grid calls the ClientApp in
threads of the process itself. Messages are deep-copied both ways, as over a wire, so neither side
can change what the other holds.

    run_in_process(server_app, client_app, [{"site": "a"}, {"site": "b"}])
"""

import copy
import logging
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

logger = logging.getLogger(__name__)

RUN_ID = 1
SERVER_ID = 0
"""Node id of the ServerApp; sites are 1..n."""


# What Flower 1.41 keeps private, all of it here: `ErrorCode`, `Run` and `TaskIdentity` above are
# exported by no public module; a Message takes its run and its sender from the process-wide
# TaskIdentity; the link, not the sender, writes a message's id, past the read-only property.


def _identify() -> None:
    """Make this process the ServerApp's: `Message(...)` fails where no identity is set."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SERVER_ID


def _stamped(message: Message) -> Message:
    """A deep copy of `message` with a fresh id, as a link would deliver it."""
    delivered = copy.deepcopy(message)
    delivered.metadata.__dict__["_message_id"] = str(uuid.uuid4())
    return delivered


def _context(
    node_id: int, node_config: Mapping[str, Any], run_config: Mapping[str, Any]
) -> Context:
    """A Context of its own for each node, so that none sees what another writes there."""
    return Context(RUN_ID, node_id, dict(node_config), RecordDict(), dict(run_config))


class InProcessGrid(Grid):
    """A Flower Grid whose sites are threads of this process.

    A site handles one message at a time, in the order sent; `workers` sites run at once. A site
    that missed a deadline goes on in its own thread and holds up nobody else: the late reply is
    discarded, the site's next message waits for it.

    The ClientApp is called for every message with the Context of the site it is addressed to, which
    holds its `node_config` and the `run_config`; site i has node id i + 1. With one worker sites
    run one after the other in the order of the messages, which keeps draws from a global random
    generator reproducible.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Any]],
        run_config: Mapping[str, Any],
        workers: int = 1,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        _identify()
        self._client_app = client_app
        self._contexts = {
            node_id: _context(node_id, config, run_config)
            for node_id, config in enumerate(node_configs, start=1)
        }
        self._workers = workers
        # One thread a site at most, so that a submitted message always starts at once.
        self._pool = ThreadPoolExecutor(max(1, len(self._contexts)), thread_name_prefix="site")
        # Guards everything below and tells waiters of a new reply.
        self._changed = threading.Condition()
        self._waiting: dict[str, Message] = {}  # message id → message, in the order sent
        self._busy: dict[int, str] = {}  # node id → id of the message it is working on
        self._abandoned: set[str] = set()  # ids of running messages nobody waits for
        self._replies: dict[str, Message] = {}  # message id → reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what has not started and wait for what has, so that no site works on unseen."""
        with self._changed:
            self._waiting.clear()
        self._pool.shutdown()

    def set_run(self, run: Run) -> None:
        """Not needed: the grid has one run."""

    @property
    def run(self) -> Run:
        """The grid's only run."""
        return Run.create_empty(RUN_ID)

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

    def get_node_ids(self) -> list[int]:
        """The sites' node ids, 1..n in the order of `node_configs`."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages without waiting; returns their ids, for `pull_messages`."""
        sent = [_stamped(message) for message in messages]
        ids = [message.metadata.message_id for message in sent]
        with self._changed:
            self._waiting.update(zip(ids, sent, strict=True))
            self._start_waiting()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, in the order of `message_ids`; each is given out once."""
        with self._changed:
            return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and wait for the replies.

        Several messages to a site are handled in their order. `timeout` is in seconds until the
        deadline; None waits for every reply.

        Returns:
            The replies ready at the deadline, in the order of `messages`. A site whose ClientApp
            raised has a reply with an Error; one that is late has none.
        """
        ids = self.push_messages(messages)
        with self._changed:
            self._changed.wait_for(lambda: self._replies.keys() >= set(ids), timeout)
            replies = self.pull_messages(ids)
            self._abandon(ids)
        return replies

    def _start_waiting(self) -> None:
        """Start what may start: first come, first served, one message a site, `workers` at once."""
        for message_id, message in list(self._waiting.items()):
            if len(self._busy) - len(self._abandoned) >= self._workers:
                return
            node_id = message.metadata.dst_node_id
            if node_id in self._busy:
                continue
            del self._waiting[message_id]
            self._busy[node_id] = message_id
            self._pool.submit(self._handle, message)

    def _handle(self, message: Message) -> None:
        """Run one message at its site and file the reply (in a thread of the pool)."""
        message_id, node_id = message.metadata.message_id, message.metadata.dst_node_id
        reply = self._answer(message)
        with self._changed:
            del self._busy[node_id]
            if message_id in self._abandoned:
                self._abandoned.remove(message_id)
            else:
                self._replies[message_id] = reply
            self._start_waiting()
            self._changed.notify_all()

    def _answer(self, message: Message) -> Message:
        """The site's reply; whatever it raises becomes an Error that names the site."""
        node_id = message.metadata.dst_node_id
        if node_id not in self._contexts:
            reason = f"node {node_id}: no such site; there are 1..{len(self._contexts)}"
            return _stamped(Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message))
        try:
            return _stamped(self._client_app(message, self._contexts[node_id]))
        except BaseException as error:  # also SystemExit: a site must not end the others' run
            logger.warning("node %d failed", node_id, exc_info=True)
            reason = f"node {node_id}: {error!r}"
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return _stamped(Message(Error(code, reason), reply_to=message))

    def _abandon(self, message_ids: list[str]) -> None:
        """Stop waiting for messages: those not started never run, those running run unheard."""
        for message_id in message_ids:
            self._waiting.pop(message_id, None)
        self._abandoned |= set(self._busy.values()) & set(message_ids)
        self._start_waiting()


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    node_configs: Sequence[Mapping[str, Any]],
    run_config: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> None:
    """Run a ServerApp over in-process sites to its end; what it raises reaches the caller.

    See `InProcessGrid`; the coordinator's Context has the `run_config` of every site.
    """
    with InProcessGrid(client_app, node_configs, run_config or {}, workers) as grid:
        server_app(grid=grid, context=_context(SERVER_ID, {}, run_config or {}))
