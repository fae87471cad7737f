import gc
import json
import weakref
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.serde import message_to_proto
from flwr.proto import node_pb2
from flwr.proto.control_pb2 import (
    ListNodesResponse,
    ListRunsResponse,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
)
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectResponse
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    add_header_to_object_body,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)

from hica.deployment.bundle import BUNDLE_SHA256
from hica.errors import FederationError
from hica.wire.packing import PARCEL, pack
from hica_server.provision import make_authority
from hica_server.settings import Folder
from hica_server.superlink import (
    MOST_BEYOND,
    MOST_OBJECTS,
    Control,
    Node,
    PromptGrid,
    UnreachableError,
    environment,
)

# --- Environment ---------------------------------------------------------------------------------


def test_our_processes_reach_each_other_past_a_proxy_and_others_still_through_theirs(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    for name in ("NO_PROXY", "no_proxy"):
        assert environment(Folder(tmp_path))[name] == "intranet.example,127.0.0.1,localhost"


def test_nothing_of_flower_calls_home(tmp_path):
    told = environment(Folder(tmp_path))
    assert (told["FLWR_TELEMETRY_ENABLED"], told["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")


# --- Control API ---------------------------------------------------------------------------------


@pytest.fixture
def control(tmp_path):
    """A client whose SuperLink answers as `answers[path]` says; keeps what it was asked."""
    folder = Folder(tmp_path)
    make_authority(folder)
    control = Control(folder, 1)
    control.asked = []
    control.answers = {}

    def answer(request):
        control.asked.append(request)
        said = control.answers[request.url.path.rpartition("/")[2]]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, tuple):
            return httpx.Response(said[0], text=said[1], request=request)
        return httpx.Response(200, content=said.SerializeToString(), request=request)

    control._client._client = httpx.Client(transport=httpx.MockTransport(answer))
    return control


def test_a_site_is_registered_under_its_name(control):
    control.answers["register-node"] = RegisterNodeResponse(node_id=2**63 + 5)
    assert control.register("H1", b"pem") == 2**63 + 5


def test_nodes_are_told_without_those_let_in_no_more(control):
    control.answers["list-nodes"] = ListNodesResponse(
        nodes_info=[
            NodeInfo(node_id=1, name="a", public_key=b"A", status="registered"),
            NodeInfo(
                node_id=2, name="b", public_key=b"B", status="online", last_activated_at="2026-01"
            ),
            NodeInfo(
                node_id=3,
                name="c",
                public_key=b"C",
                status="offline",
                last_activated_at="2026-01",
                last_deactivated_at="2026-02",
            ),
            NodeInfo(node_id=4, name="d", public_key=b"D", status="unregistered"),
        ]
    )
    assert control.nodes() == [
        Node(1, "a", b"A", False, ""),
        Node(2, "b", b"B", True, "2026-01"),
        Node(3, "c", b"C", False, "2026-02"),
    ]


def test_a_run_is_of_the_pinned_bundle_and_of_nothing_but_the_study(control):
    control.answers["start-run"] = StartRunResponse(run_id=7)
    assert control.start_run("ab" * 32) == 7
    request = StartRunRequest.FromString(control.asked[0].content)
    assert request.fab.hash_str == BUNDLE_SHA256
    assert {key: value.string for key, value in request.override_config.items()} == {
        "study": "ab" * 32
    }


def test_runs_that_have_not_finished_are_told_from_those_that_have(control):
    control.answers["list-runs"] = ListRunsResponse(
        run_dict={
            1: Run(status=RunStatus(status="running")),
            2: Run(status=RunStatus(status="finished", sub_status="failed", details="why")),
        }
    )
    assert control.unfinished_runs() == [1]
    assert not control.run_status(1).finished
    assert control.run_status(2).finished
    assert control.run_status(2).details == "why"


@pytest.mark.parametrize(
    "said", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), (503, ""), (500, "locked")]
)
def test_a_superlink_that_does_not_answer_is_told_from_one_that_refuses(control, said):
    control.answers["list-nodes"] = said
    with pytest.raises(UnreachableError):
        control.nodes()


def test_what_the_superlink_refuses_is_an_error_with_its_words(control):
    control.answers["stop-run"] = (404, "no such run")
    with pytest.raises(FederationError, match="refuses StopRunRequest: no such run"):
        control.stop_run(1)


# --- Grid ----------------------------------------------------------------------------------------


class Upload:
    """An answer at the SuperLink.

    Attributes:
        answer: The message as it is announced.
        tree: The ids of its objects, as announced.
        objects: Their contents by id, in the order in which they are pushed.
    """

    def __init__(self, answer, whole=None):
        whole = answer if whole is None else whole
        self.answer = answer
        self.tree = get_object_tree(whole)
        self.objects = {key: it.deflate() for key, it in get_all_nested_objects(whole).items()}
        self.root = self.tree.object_id

    def hold_back(self, *ids):
        """Have these objects on their way."""
        self.objects |= dict.fromkeys(ids, b"")


class Link:
    """Flower's grid: answers are announced one look after the other.

    Attributes:
        looks: What is announced at each look, a list of uploads; afterwards nothing.
        refused: Nodes whose messages the SuperLink does not take.
        stores: Whether it stores the objects it is given.
        known: Objects that it has already.
        asked: The node of each message it was told of, by the message's id.
        pushed: The objects it was given, in their order, by id.
        awaited: Ids it was asked for at each look.
        pulled: Objects it was asked for.
        confirmed: Messages it may forget.
        when_pulled: Called with an object's id before it is given out.
    """

    run = SimpleNamespace(run_id=7)
    node = node_pb2.Node(node_id=1)

    def __init__(self, *looks, refused=()):
        self.looks = list(looks)
        self.refused = refused
        self.uploads = [upload for look in looks for upload in look]
        self.stores, self.known = True, set()
        self.asked, self.pushed = {}, {}
        self.awaited, self.pulled, self.confirmed = [], [], []
        self.when_pulled = lambda object_id: None
        self._runtime_client = SimpleNamespace(
            PushMessages=self._take_note,
            PushObject=self._take_in,
            PullMessages=self._announce,
            PullObject=self._give_out,
            ConfirmMessageReceived=lambda request: self.confirmed.append(request.message_object_id),
        )

    def get_nodes(self):
        return [NodeInfo(node_id=1, name="a"), NodeInfo(node_id=2, name="b")]

    def _take_note(self, request):
        told = [message.metadata for message in request.messages_list]
        self.asked |= {each.message_id: each.dst_node_id for each in told}
        trees = request.message_object_trees
        wanted = {each.object_id for tree in trees for each in iterate_object_tree(tree)}
        return PushAppMessagesResponse(
            message_ids=[
                "" if each.dst_node_id in self.refused else each.message_id for each in told
            ],
            objects_to_push=wanted - self.known,
            session_id="session",
        )

    def _take_in(self, request):
        assert (request.run_id, request.node) == (self.run.run_id, self.node)
        assert request.session_id == "session" and request.object_id not in self.pushed
        self.pushed[request.object_id] = request.object_content
        return PushObjectResponse(stored=self.stores)

    def _announce(self, request):
        self.awaited.append({f"to {self.asked[each]}" for each in request.message_ids})
        found = self.looks.pop(0) if self.looks else []
        messages = [message_to_proto(upload.answer) for upload in found]
        ids = {f"to {node}": message_id for message_id, node in self.asked.items()}
        for message in messages:
            question = message.metadata.reply_to_message_id
            message.metadata.reply_to_message_id = ids.get(question, question)
        return PullAppMessagesResponse(
            messages_list=messages,
            message_object_trees=[upload.tree for upload in found],
        )

    def _give_out(self, request):
        assert (request.run_id, request.node) == (self.run.run_id, self.node)
        self.pulled.append(request.object_id)
        self.when_pulled(request.object_id)
        contents = [it.objects for it in self.uploads if request.object_id in it.objects]
        if not contents:
            return PullObjectResponse(object_found=False)
        content = contents[0][request.object_id]
        return PullObjectResponse(
            object_found=True, object_available=content != b"", object_content=content
        )


def to(node, content=None):
    return Message(content or RecordDict(), node, "train.align")


def reply(node, content=None):
    asked = to(node)
    asked.metadata.__dict__["_message_id"] = f"to {node}"
    return Message(content or RecordDict(), reply_to=asked)


def answer(node, content=None):
    return Upload(reply(node, content))


def nodes_of(messages):
    return [message.metadata.src_node_id for message in messages]


@pytest.fixture
def grid_of(make_grid):
    """A prompt grid over a link that finds these answers."""
    make_grid({})  # gives this process the identity of a server

    def grid_of(*looks, refused=()):
        link = Link(*looks, refused=refused)
        return PromptGrid(link, poll_seconds=0.0), link

    return grid_of


def test_answers_are_given_out_as_they_come_and_no_longer_asked_for(grid_of):
    grid, link = grid_of([], [answer(2)], [], [answer(1)])
    assert nodes_of(grid.send_and_receive([to(1), to(2)], timeout=60.0)) == [2, 1]
    assert link.awaited == [{"to 1", "to 2"}, {"to 1", "to 2"}, {"to 1"}, {"to 1"}]


def test_an_answer_says_what_its_site_sent_and_replies_to_what_was_asked(grid_of):
    sent = reply(1, RecordDict({"message": ConfigRecord({"header": "so"})}))
    upload = Upload(sent)
    grid, link = grid_of([upload])
    (got,) = grid.send_and_receive([Message(RecordDict(), 1, "train.align", group_id="3")])
    assert got.content == sent.content
    assert link.asked == {got.metadata.reply_to_message_id: 1}
    assert got.metadata.group_id == "3"
    assert link.confirmed == [upload.root]


@pytest.mark.parametrize("code", [3, 4, 5])
def test_a_site_whose_answer_cannot_come_any_more_is_silent_and_not_waited_for(grid_of, code):
    grid, _ = grid_of([answer(1, Error(code, "gone")), answer(2)])
    assert nodes_of(grid.send_and_receive([to(1), to(2)])) == [2]


def test_a_failure_at_a_site_is_an_answer(grid_of):
    grid, _ = grid_of([answer(1, Error(2, "disk is full"))])
    (failed,) = grid.send_and_receive([to(1)])
    assert failed.error == Error(2, "disk is full")


def test_a_message_that_the_superlink_did_not_take_is_not_waited_for(grid_of):
    grid, link = grid_of([answer(2)], refused=[1])
    assert len(list(grid.send_and_receive([to(1), to(2)]))) == 1
    assert link.awaited == [{"to 2"}]


def test_nothing_is_waited_for_beyond_the_deadline(grid_of):
    grid, link = grid_of([answer(2)])
    assert len(list(grid.send_and_receive([to(1), to(2)], timeout=0.0))) == 1
    assert len(link.awaited) == 1


def test_no_messages_no_answers(grid_of):
    grid, link = grid_of()
    assert list(grid.send_and_receive([], timeout=60.0)) == []
    assert link.awaited == []


def test_what_was_sent_with_patience_can_be_looked_for_once(grid_of):
    grid, _ = grid_of([], [answer(1)])
    ids = grid.push_messages([to(1)])
    assert list(grid.pull_messages(ids)) == []
    assert nodes_of(grid.pull_messages(ids)) == [1]
    assert list(grid.pull_messages(ids)) == []


def test_small_arrays_travel_in_a_parcel_that_is_made_once_for_all_sites(grid_of):
    content = RecordDict(
        {
            "message": ConfigRecord({"header": ""}),
            "arrays": ArrayRecord([np.zeros(3), np.ones(2)]),
        }
    )
    grid, link = grid_of([answer(1, pack(content)), answer(2, pack(content))])
    answers = list(grid.send_and_receive([to(1, content), to(2, content)]))
    pushed = b"".join(link.pushed.values())
    assert pushed.count(PARCEL.encode()) == 1 and b"Array" not in pushed
    for each in answers:
        assert [array.numpy().tolist() for array in each.content["arrays"].values()] == [
            [0.0, 0.0, 0.0],
            [1.0, 1.0],
        ]


def test_answers_are_taken_one_at_a_time_and_not_held(grid_of):
    grid, link = grid_of([answer(1), answer(2)])
    answers = iter(grid.send_and_receive([to(1), to(2)]))
    first = next(answers)
    pulled, first = len(link.pulled), weakref.ref(first)
    assert first() is None
    assert pulled == len(link.uploads[0].objects)
    assert len(list(answers)) == 1


def test_what_is_sent_is_not_held_while_answers_are_awaited(grid_of):
    grid, _ = grid_of()
    content = RecordDict({"message": ConfigRecord({"header": ""})})
    sent = weakref.ref(content)
    grid.push_messages([to(1, content)])
    del content
    gc.collect()  # a record that has been looked into is part of a circle
    assert sent() is None


def test_every_object_is_sent_once_whole_and_only_if_it_is_wanted(grid_of):
    grid, link = grid_of()
    content = RecordDict({"arrays": ArrayRecord([np.arange(6.0), np.zeros(2)])})
    messages = [to(1, content), to(2, content)]
    objects = {}
    for message in messages:
        objects |= {key: it.deflate() for key, it in get_all_nested_objects(message).items()}
    known = next(key for key, it in objects.items() if it.startswith(b"ArrayChunk"))
    link.known = {known}
    ids = grid.push_messages(messages)
    assert list(link.asked) == ids
    contents = {key: it for key, it in objects.items() if not it.startswith(b"Message")}
    assert known in contents
    assert {key: link.pushed.get(key) for key in contents} == contents | {known: None}
    assert len(link.pushed) == len(contents) - 1 + len(messages)


def test_an_answer_is_not_held_twice_while_it_is_put_together(grid_of, monkeypatch):
    arrays = ArrayRecord([np.full(2**18, float(number)) for number in range(4)])
    upload = answer(1, RecordDict({"arrays": arrays}))
    held = []
    made = ArrayChunk.inflate.__func__

    def inflate(cls, *arguments, **named):
        assert not [piece for piece in held if piece() is not None]  # they are arrays by now
        piece = made(cls, *arguments, **named)
        held.append(weakref.ref(piece))
        return piece

    monkeypatch.setattr(ArrayChunk, "inflate", classmethod(inflate))
    grid, _ = grid_of([upload])
    (got,) = grid.send_and_receive([to(1)])
    assert [array.numpy()[0] for array in got.content["arrays"].values()] == [0.0, 1.0, 2.0, 3.0]


def test_a_piece_that_arrays_share_is_in_each_of_them(grid_of):
    zeros = np.zeros(12 * 2**17)  # 12 MiB in pieces of 5 MiB, the first two alike
    content = RecordDict({"arrays": ArrayRecord({"a": Array(zeros), "b": Array(zeros.copy())})})
    content["arrays"]["c"] = Array(np.zeros(5 * 2**17))
    grid, _ = grid_of([answer(1, content)])
    question = to(1, RecordDict({"arrays": ArrayRecord([np.ones(4 * 12 * 2**17)])}))
    (got,) = grid.send_and_receive([question])
    assert {name: array.numpy().sum() for name, array in got.content["arrays"].items()} == {
        "a": 0.0,
        "b": 0.0,
        "c": 0.0,
    }


def test_an_object_that_is_not_stored_stops_the_run(grid_of):
    grid, link = grid_of()
    link.stores = False
    with pytest.raises(FederationError, match="did not store object"):
        grid.push_messages([to(1)])


def test_connected_sites_are_known_by_the_names_they_were_registered_for(grid_of):
    assert grid_of()[0].connected() == {"a": 1, "b": 2}


# --- Uploads that take their time ----------------------------------------------------------------


def test_an_upload_that_is_stuck_keeps_no_other_waiting_and_ends_with_the_deadline(grid_of):
    stuck, whole = answer(1), answer(2)
    stuck.hold_back(stuck.root)
    grid, link = grid_of([stuck], [whole])
    answers = iter(grid.send_and_receive([to(1), to(2)], timeout=0.5))
    assert next(answers).metadata.src_node_id == 2
    assert link.pulled == [stuck.root, stuck.root, *reversed(whole.objects)]
    assert list(answers) == []
    assert set(link.pulled) == {stuck.root, *whole.objects}  # one small object a look
    assert link.confirmed == [whole.root]


def test_an_upload_is_taken_once_it_is_whole_and_its_objects_are_pulled_twice_at_most(grid_of):
    """It is held back in the order that costs most: every look finds one object more."""
    upload = Upload(
        reply(1, RecordDict({name: ArrayRecord([np.array([i])]) for i, name in enumerate("abcd")}))
    )
    whole, order = dict(upload.objects), list(upload.objects)
    upload.hold_back(*order)
    grid, link = grid_of([upload])

    def come(object_id):
        if link.pulled.count(object_id) > 1:
            upload.objects[object_id] = whole[object_id]

    link.when_pulled = come
    (got,) = grid.send_and_receive([to(1)])
    arrays = [array.numpy() for record in got.content.values() for array in record.values()]
    assert arrays == [0, 1, 2, 3]
    assert max(map(link.pulled.count, order)) == 3  # the first time it was not there
    assert link.awaited == [{"to 1"}]  # it is announced once


def test_an_upload_that_was_given_up_by_its_site_is_silence(grid_of):
    upload = answer(1)
    upload.hold_back(upload.root)
    grid, link = grid_of([upload])
    link.when_pulled = lambda object_id: len(link.pulled) > 2 and upload.objects.clear()
    assert list(grid.send_and_receive([to(1)])) == []
    assert len(link.pulled) == 3


# --- Answers of no use ---------------------------------------------------------------------------


def forged(kind, body):
    """A class whose objects pass for Flower's `kind`, whatever is in them."""

    class Forged(kind):
        def deflate(self):
            return add_header_to_object_body(body, self)

    Forged.__qualname__ = kind.__qualname__
    return Forged


def with_record(record):
    return answer(1, RecordDict({"message": record}))


def unlike_its_tree():
    upload = answer(1, RecordDict({"message": ConfigRecord({"header": ""})}))
    upload.tree.children[0].ClearField("children")
    return upload


def endless():
    """A hundred bytes named so often that they are more than can be taken."""
    body = {"dtype": "uint8", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 10**6}
    arrays = ArrayRecord()
    arrays["a"] = forged(Array, json.dumps(body).encode())(np.zeros(100, np.uint8))
    return with_record(arrays)


@pytest.mark.parametrize(
    ("upload", "why"),
    [
        (
            lambda: with_record(forged(ConfigRecord, b"\xff")({"a": 1})),
            "cannot be read: DecodeError",
        ),
        (
            lambda: with_record(forged(ArrayRecord, b"[" * 10**5)({"a": Array(np.zeros(1))})),
            "cannot be read: RecursionError",
        ),
        (lambda: Upload(reply(1), ConfigRecord({"a": 1})), "cannot be read: AttributeError"),
        (unlike_its_tree, "cannot be read: KeyError"),
        (endless, f"has more than {MOST_BEYOND} bytes"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_of_its_site_alone(grid_of, upload, why):
    bad = upload()
    grid, link = grid_of([bad, answer(2)])
    got = {it.metadata.src_node_id: it for it in grid.send_and_receive([to(1), to(2)])}
    assert got[1].error == Error(0, f"the answer {why}")
    assert got[2].has_content()
    assert bad.root in link.confirmed


def test_the_bytes_of_an_answer_are_limited_by_those_of_the_question(grid_of):
    content = RecordDict({"arrays": ArrayRecord([np.arange(3 * 2**20)])})
    grid, link = grid_of([answer(1, content)])
    (refused,) = grid.send_and_receive([to(1)])
    assert refused.error.reason == f"the answer has more than {MOST_BEYOND} bytes"
    assert len(link.pulled) < len(link.uploads[0].objects)  # it was broken off
    grid, _ = grid_of([answer(1, content)])
    (taken,) = grid.send_and_receive([to(1, content)])
    assert taken.has_content()


def test_too_many_objects_are_not_even_asked_for(grid_of):
    upload = answer(1)
    upload.tree.children.extend(ObjectTree(object_id=str(i)) for i in range(MOST_OBJECTS))
    grid, link = grid_of([upload])
    (refused,) = grid.send_and_receive([to(1)])
    assert refused.error.reason == f"the answer has more than {MOST_OBJECTS} objects"
    assert link.pulled == []


def test_what_an_answer_says_of_its_sender_is_not_believed(grid_of):
    told, said = reply(1), reply(1)
    said.metadata.__dict__ |= {"_src_node_id": 2, "_reply_to_message_id": "to 2"}
    grid, link = grid_of([Upload(told, said)], [answer(2)])
    got = list(grid.send_and_receive([to(1), to(2)]))
    assert nodes_of(got) == [1, 2]
    assert [link.asked[it.metadata.reply_to_message_id] for it in got] == [1, 2]


def test_what_answers_nothing_that_was_asked_is_ignored(grid_of):
    grid, link = grid_of([answer(3), answer(1)])
    assert nodes_of(grid.send_and_receive([to(1)])) == [1]
    assert link.uploads[0].root not in link.pulled
