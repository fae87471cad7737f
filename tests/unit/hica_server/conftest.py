"""A grid whose nodes answer from a script, and sites for it that follow the protocol."""

import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp

from hica.deployment.keys import generate, public_path, read_private
from hica.method.calibration import curvature
from hica.method.evaluation import site_metrics
from hica.method.pseudo_labels import assign, cluster_sums, site_start
from hica.study import Study, apply_overrides, validated
from hica.wire.messages import Kind, Reply, Request, decode_request, encode_reply
from hica_server.enrolment import enroll
from hica_server.settings import Folder
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

    An update is what was broadcast plus `step`.
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
        self.counts = {"labelled": labelled, "unlabelled": unlabelled, "test": test}
        draws = np.random.default_rng(sum(name.encode()))
        self.features = draws.normal(size=(unlabelled, dim))
        self.labels = np.arange(labelled) % 2
        self.requests: list[Request] = []
        self.changes: dict[Kind, Callable[[Reply], Reply]] = {}

    def __call__(self, message: Message) -> RecordDict:
        kind = Kind(message.metadata.message_type)
        request = decode_request(message.content, kind)
        self.requests.append(request)
        reply = self.reply(request)
        return encode_reply(self.changes.get(kind, lambda same: same)(reply))

    def asked(self) -> list[Kind]:
        return [request.kind for request in self.requests]

    def reply(self, request: Request) -> Reply:
        empty = Reply(request.kind, self.name, request.round)
        kind = request.kind
        if kind == Kind.CAPABILITIES:
            told = {"tower": "good", "device": "cpu", "classes": {}, "notes": []}
            return replace(empty, details={**self.counts, **told})
        if kind == Kind.MOMENTS:
            sums = np.stack([self.features.sum(axis=0), np.zeros(self.dim)])
            counts = np.array([len(self.features), 0.0])
            arrays = {"sums": sums, "counts": counts}
            if request.study.alignment.scaling == "global":
                squares = np.square(self.features).sum(axis=0)
                arrays["squares"] = np.stack([squares, np.zeros(self.dim)])
            return replace(empty, arrays=arrays)
        if kind == Kind.CLUSTERS:
            if request.settings["step"] == "start":
                parts = site_start(self.features, request.study.pretraining.clusters, 0)
            else:
                parts = cluster_sums(self.features, request.arrays["centroids"])
            return replace(empty, arrays=parts._asdict())
        if kind == Kind.PROTOTYPES:
            shots = self.features[: len(self.labels)]
            sums = np.stack([shots[self.labels == c].sum(axis=0) for c in range(2)])
            counts = np.bincount(self.labels, minlength=2).astype(float)
            return replace(empty, arrays={"sums": sums, "counts": counts})
        if kind == Kind.CALIBRATE:
            scores = self.features[: len(self.labels), :2]
            parts = curvature(scores, self.labels, request.arrays["bias"])
            arrays = {"gradient": parts.gradient, "hessian": parts.hessian}
            return replace(empty, examples=parts.images, arrays=arrays)
        if kind == Kind.EVALUATE:
            truth = np.arange(self.counts["test"]) % 2
            groups = [str(i) for i in range(len(truth))]
            sure = np.eye(2)[truth] * 0.8 + 0.1
            metrics = site_metrics(sure, truth, groups, 2, seed=0, min_count=1)
            return replace(empty, details=metrics.to_dict())
        arrays = {
            name: value + np.float32(self.step)
            for name, value in request.arrays.items()
            if name.startswith("shared.")
        }
        examples = self.counts["labelled" if kind == Kind.ALIGN else "unlabelled"]
        return replace(empty, examples=examples, details={"loss": self.step}, arrays=arrays)

    def pseudo_labels(self, centroids: np.ndarray) -> np.ndarray:
        return assign(self.features, centroids)


STUDY = {
    "study": {"name": "toy"},
    "classes": [{"name": "a", "prompts": ["one"]}, {"name": "b", "prompts": ["two"]}],
    "federation": {"retries": 1, "deadline": 5},
}


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
