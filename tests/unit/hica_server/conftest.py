"""A grid whose nodes answer from a script, and sites for it that follow the protocol."""

import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree
from flwr.proto.node_pb2 import Node

from hica.deployment.keys import PublicKey, generate, public_path, read_private
from hica.method.calibration import curvature
from hica.method.evaluation import site_metrics
from hica.method.pseudo_labels import cluster_sums, site_start
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import PERSONAL
from hica.steps.plan import plan
from hica.steps.prototypes import PROTOTYPES
from hica.steps.result import RESULT
from hica.steps.state import Bank, State
from hica.steps.step import Step
from hica.study import Study, apply_overrides, validated
from hica.wire.messages import Kind, Reply, Request
from hica.wire.records import decode_request, encode_reply
from hica.wire.weight_names import BANK_CLASSES
from hica_server.coordinator import Coordinator
from hica_server.enrolment import enroll
from hica_server.participants import Roster
from hica_server.settings import Folder
from hica_server.state import RunState
from hica_simulations.grid import InProcessGrid

Answer = RecordDict | str | None
"""A reply, the reason of a failure, or silence until the deadline."""


class FakeGrid:
    """Grid whose node n answers with `answers[n](message)`.

    Attributes:
        asked: Nodes of every call, in order.
        strangers: Replies of nodes nobody asked, added to the next ones.
        away: Nodes that are not connected, with the number of looks after which they are back.
    """

    def __init__(self, answers: dict[int, Callable[[Message], Answer]]) -> None:
        InProcessGrid(ClientApp(), [], {}).close()  # gives this process the identity of a server
        self.answers = answers
        self.asked: list[list[int]] = []
        self.deadlines: list[float | None] = []
        self.sent: list[Message] = []
        self.strangers: list[Message] = []
        self.away: dict[int, int] = {}

    def get_node_ids(self) -> list[int]:
        connected = [node for node in self.answers if self.away.get(node, 0) <= 0]
        self.away = {node: looks - 1 for node, looks in self.away.items()}
        return connected

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        messages = list(messages)
        self.asked.append([message.metadata.dst_node_id for message in messages])
        self.deadlines.append(timeout)
        self.sent += messages
        replies = list(self.strangers)
        for message in messages:
            answer = self.answers[message.metadata.dst_node_id](message)
            if isinstance(answer, str):
                replies.append(Message(Error(2, answer), reply_to=message))
            elif answer is not None:
                replies.append(Message(answer, reply_to=message))
        return replies


class FakeSite:
    """A site with feature vectors in place of images; `changes` spoil its replies by kind.

    An update is what was broadcast plus `step`; stage 1 leaves the text bank as it is.
    """

    def __init__(
        self,
        name: str,
        step: float = 0.0,
        labelled: int = 4,
        unlabelled: int = 6,
        test: int = 6,
        dim: int = 4,
    ) -> None:
        self.name, self.step, self.dim = name, step, dim
        self.withdrawn = 0
        self.counts = {"labelled": labelled, "unlabelled": unlabelled, "test": test}
        draws = np.random.default_rng(sum(name.encode()))
        rows = draws.normal(size=(unlabelled, dim))
        self.features = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
        self.labels = np.arange(labelled) % 2
        self.requests: list[Request] = []
        self.changes: dict[str, Callable[[Reply], Reply]] = {}

    def __call__(self, message: Message) -> RecordDict:
        kind = message.metadata.message_type
        request = decode_request(message.content, kind)
        self.requests.append(request)
        reply = self.reply(request)
        return encode_reply(self.changes.get(kind, lambda same: same)(reply))

    def asked(self) -> list[str]:
        return [request.kind for request in self.requests]

    def reply(self, request: Request) -> Reply:
        empty = Reply(request.kind, self.name, request.round)
        kind = request.kind
        if kind == Kind.CAPABILITIES:
            classes = dict.fromkeys(request.study.class_names)
            told = {"tower": "good", "device": "cpu", "classes": classes, "notes": []}
            return replace(empty, details={**self.counts, **told})
        if kind == CENTRE.kind:
            sums = np.stack([self.features.sum(axis=0), np.zeros(self.dim)])
            counts = np.array([len(self.features), 0.0])
            arrays = {"sums": sums, "counts": counts}
            if request.study.alignment.scaling == "global":
                squares = np.square(self.features).sum(axis=0)
                arrays["squares"] = np.stack([squares, np.zeros(self.dim)])
            return replace(empty, examples=len(self.features), arrays=arrays)
        if kind == LLOYD.kind:
            if request.settings["step"] == "assign":
                return empty
            if request.settings["step"] == "start":
                parts = site_start(self.features, request.study.pretraining.clusters, 0)
            else:
                parts = cluster_sums(self.features, request.arrays["centroids"])
            return replace(empty, examples=len(self.features), arrays=parts._asdict())
        if kind == PROTOTYPES.kind:
            shots = self.features[: len(self.labels)]
            sums = np.stack([shots[self.labels == c].sum(axis=0) for c in range(2)])
            counts = np.bincount(self.labels, minlength=2).astype(float)
            return replace(empty, examples=len(shots), arrays={"sums": sums, "counts": counts})
        if kind == CALIBRATION.kind:
            scores = self.features[: len(self.labels), :2]
            parts = curvature(scores, self.labels, request.arrays["bias"])
            arrays = {"gradient": parts.gradient, "hessian": parts.hessian}
            return replace(empty, examples=parts.images, arrays=arrays)
        if kind == EVALUATION.kind:
            truth = np.arange(self.counts["test"]) % 2
            groups = [str(i) for i in range(len(truth))]
            sure = np.eye(2)[truth] * 0.8 + 0.1
            metrics = site_metrics(sure, truth, groups, 2, seed=0, min_count=1)
            return replace(empty, examples=len(truth), details=metrics.to_dict())
        if kind == PERSONAL.kind:
            return empty
        if kind == RESULT.kind:
            return replace(empty, details={"withdrawn": self.withdrawn})
        stays = kind != ALIGNMENT.kind
        arrays = {
            name: value if stays and "bank." in name else value + np.float32(self.step)
            for name, value in request.arrays.items()
            if name.startswith("shared.")
        }
        examples = self.counts["labelled" if kind == ALIGNMENT.kind else "unlabelled"]
        return replace(empty, examples=examples, details={"loss": self.step}, arrays=arrays)


STUDY = {
    "study": {"name": "toy"},
    "classes": [{"name": "a", "prompts": ["one"]}, {"name": "b", "prompts": ["two"]}],
    "federation": {"retries": 1, "deadline": 5},
    # So fast that a round moves weights as far as the sites of these tests say.
    "pretraining": {"learning_rate": 100.0},
    "alignment": {"learning_rate": 100.0, "bank_learning_rate": 100.0},
}


class SmallRun:
    """A coordinator, the grid of its sites, and the turns of its plan, to be taken one by one.

    Attributes:
        grid: Its nodes are the sites, from 1 on.
        study: What is done.
        state: Weights and bank drawn, and nothing learnt yet.
        told: What `record` was called with.
    """

    def __init__(
        self,
        study: Study,
        sites: Iterable[Callable[[Message], Answer]],
        roster: Roster | None = None,
        registered: Mapping[str, PublicKey] | None = None,
        state: RunState | None = None,
    ) -> None:
        self.study = study
        self.grid = FakeGrid(dict(enumerate(sites, start=1)))
        self.state = state or RunState(study.sha256, learnt=start_of())
        self.told: list[dict[str, Any]] = []
        self.coordinator = Coordinator(
            self.grid, study, self.state, self.told.append, roster, registered=registered
        )

    def meet(self) -> "SmallRun":
        """Meet the sites whose tower is "good"."""
        self.coordinator.sites.meet("good")
        return self

    def take(self, step: Step, number: int = 0) -> "SmallRun":
        """Take the turn of a step that comes after so many others of it."""
        turns = [turn for turn in plan(self.study) if turn.step is step]
        self.coordinator.take(turns[number])
        return self

    def take_all(self, name: str, round_: int = 0) -> "SmallRun":
        """Take all turns of steps of a name that belong to a round."""
        for turn in plan(self.study):
            if (turn.step.name, turn.round) == (name, round_):
                self.coordinator.take(turn)
        return self

    @property
    def learnt(self) -> State:
        return self.state.learnt

    @property
    def last(self) -> dict[str, Any]:
        """The last entry of the history."""
        return self.state.rounds[-1]


def start_of(dim: int = 4) -> State:
    """What a run starts from: six weights of a tower, and a bank that is trained, too."""
    rows = np.random.default_rng(0).normal(size=(2, dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return State(
        shared={
            "tower.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            BANK_CLASSES: rows.copy(),
        },
        bank=Bank(rows, np.zeros((0, dim), np.float32)),
        centre=np.zeros((2, dim), np.float32),
        scale=np.ones((2, dim), np.float32),
        bias=np.zeros(2),
    )


@pytest.fixture
def make_run(make_study: Callable[..., Study]) -> Callable[..., SmallRun]:
    """`make_run(site, …, overrides=[…], roster=…)`: before it has met its sites."""
    return lambda *sites, overrides=(), **more: SmallRun(make_study(*overrides), sites, **more)


@pytest.fixture
def make_grid() -> Callable[..., FakeGrid]:
    """`make_grid({1: answer, …})`."""
    return FakeGrid


@pytest.fixture
def make_site() -> Callable[..., FakeSite]:
    """`make_site(name, step=…, labelled=…, unlabelled=…, test=…)`."""
    return FakeSite


@pytest.fixture
def make_study() -> Callable[..., Study]:
    """A study of two classes; arguments are overrides `a.b=value`."""
    return lambda *overrides: validated(Study, apply_overrides(STUDY, list(overrides)), "toy")


@pytest.fixture
def announcement() -> Callable[..., PushMessagesRequest]:
    """`announcement(**metadata)`: as node 7 announces an answer, its metadata changed."""

    def announce(**changed: Any) -> PushMessagesRequest:
        told = {
            "run_id": 11,
            "message_id": "a" * 64,
            "src_node_id": 7,
            "dst_node_id": 1,
            "reply_to_message_id": "b" * 64,
            "ttl": 43200.0,
            "created_at": time.time(),
            "message_type": "train.align",
        }
        return PushMessagesRequest(
            node=Node(node_id=7),
            messages_list=[ProtoMessage(metadata=Metadata(**{**told, **changed}))],
            message_object_trees=[ObjectTree(object_id="a" * 64)],
        )

    return announce


class EnrolledNode:
    """A site's key and the headers that its SuperNode would send."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.name, self.key_file = name, folder.root / f"{name}-key"
        self.public = generate(self.key_file)
        self.private = read_private(self.key_file)
        enroll(folder, name, public_path(self.key_file))

    def headers(self, at: float | None = None) -> dict[bytes, bytes]:
        """Signed `at` seconds since 1970; default: now."""
        moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
        timestamp = moment.isoformat().encode()
        signature = self.private.sign(timestamp, ec.ECDSA(hashes.SHA256()))
        return {
            b"flwr-public-key": b64encode(self.public.pem),
            b"flwr-timestamp": timestamp,
            b"flwr-signature": b64encode(signature),
        }


@pytest.fixture
def enrol(tmp_path) -> Callable[[str], EnrolledNode]:
    """`enrol(name)` in the coordinator's folder `tmp_path / "study"`."""
    return lambda name: EnrolledNode(Folder(tmp_path / "study"), name)
