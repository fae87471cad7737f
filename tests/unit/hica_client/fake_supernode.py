"""Flower's SuperNode without a coordinator: its real Runtime API, in a thread of this process."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from flwr.app import Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from tests.coordinator import signed

from hica.deployment.supervision import free_port

SECRET = b"shared secret"
NODE, RUN = 7, 11


class FakeSuperNode:
    """Asks a runner, as a SuperNode does with what it has received, and gives its reply back."""

    def __init__(self, port: int | None = None) -> None:
        objects = ObjectStoreFactory()
        factory = NodeStateFactory(objectstore_factory=objects)
        self.state, self.store = factory.state(), objects.store()
        self.state.set_node_id(NODE)
        self.port = port or free_port()
        app = create_app(factory, SECRET)
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_level="error", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        wait_until(lambda: self.server.started)

    @property
    def runtime(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.force_exit = self.server.should_exit = True
        self.thread.join()

    def ask(
        self,
        content: RecordDict,
        kind: str = "train.align",
        app_id: str = "hica/hica-bundle",
        bundle: bytes = b"bundle",
        run_config: dict | None = None,
        task_type: str = "flwr-clientapp",
        coordinator: bool = False,
    ) -> int:
        """Have a message answered, signed by the coordinator or not; returns the task's number."""
        run = Run.create_empty(RUN)
        run.fab_id, run.fab_hash = app_id, hashlib.sha256(bundle).hexdigest()
        self.state.store_run(run)
        self.state.store_fab(Fab(run.fab_hash, bundle, {}))
        context = Context(RUN, NODE, {}, RecordDict(), run_config or {})
        self.state.set_run_series_context(run.series_id, context)
        metadata = Metadata(RUN, "", 1, NODE, "", "3", time.time(), 3600.0, kind)
        message = make_message(metadata=metadata, content=content)
        if coordinator:
            message = signed(message)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.store.preregister(RUN, get_object_tree(message))
        for name, part in get_all_nested_objects(message).items():
            self.store.put(name, part.deflate())
        self.state.store_message(message)
        return self.state.create_task(task_type=task_type, run_id=RUN, fab_hash=run.fab_hash)

    def token(self, task: int) -> str:
        """Give a task away, as AcquireTask does."""
        return self.state.claim_task(task)

    def reply(self) -> Message:
        """Wait for a reply and take it, as the SuperNode does before it sends it on."""
        replies: list[Message] = []
        wait_until(
            lambda: bool(replies.extend(self.state.get_messages_legacy(is_reply=True)) or replies)
        )
        name = replies[0].metadata.message_id
        parts = self._contents(self.store.get_object_tree(name))
        message = inflate_object_from_contents(name, parts)
        self.state.delete_messages(message_ids=[name, message.metadata.reply_to_message_id])
        self.store.delete(name)
        return message

    def _contents(self, tree) -> dict[str, bytes]:
        wait_until(lambda: self.store.get(tree.object_id) != b"")  # handed over in pieces
        found = {tree.object_id: self.store.get(tree.object_id)}
        for part in tree.children:
            found |= self._contents(part)
        return found

    def status(self, task: int) -> tuple[str, str]:
        """Status and sub-status of a task."""
        (found,) = self.state.get_tasks(task_ids=[task])
        return found.status.status, found.status.sub_status


@contextmanager
def supernode(port: int | None = None) -> Iterator[FakeSuperNode]:
    found = FakeSuperNode(port)
    try:
        yield found
    finally:
        found.stop()


def wait_until(condition, seconds: float = 60.0) -> None:
    """Wait for a condition; one that does not come true fails the test."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
