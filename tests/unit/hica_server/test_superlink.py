import weakref

import httpx
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.proto.control_pb2 import (
    ListNodesResponse,
    ListRunsResponse,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus

from hica.bundle import BUNDLE_SHA256
from hica.errors import FederationError
from hica.parcel import PARCEL, pack
from hica_server.provision import make_authority
from hica_server.settings import Folder
from hica_server.superlink import LARGE, Control, Node, PromptGrid, UnreachableError, environment

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


class Link:
    """Flower's grid: answers become available one look after the other.

    Attributes:
        looks: What each look finds, a list of answers; afterwards nothing.
        refused: Nodes whose messages the SuperLink does not take.
        taken: The messages it was given.
    """

    def __init__(self, *looks, refused=()):
        self.looks = list(looks)
        self.refused = refused
        self.awaited = []
        self.taken = []

    def get_nodes(self):
        return [NodeInfo(node_id=1, name="a"), NodeInfo(node_id=2, name="b")]

    def push_messages(self, messages):
        self.taken += messages
        nodes = [message.metadata.dst_node_id for message in messages]
        return ["" if node in self.refused else f"to {node}" for node in nodes]

    def pull_messages(self, ids):
        self.awaited.append(set(ids))
        return self.looks.pop(0) if self.looks else []


def to(node, content=None):
    return Message(content or RecordDict(), node, "train.align")


def answer(node, content=None):
    asked = to(node)
    asked.metadata.__dict__["_message_id"] = f"to {node}"
    return Message(content or RecordDict(), reply_to=asked)


@pytest.fixture
def grid_of(make_grid):
    """A prompt grid over a link that finds these answers."""
    make_grid({})  # gives this process the identity of a server

    def grid_of(*looks, refused=()):
        link = Link(*looks, refused=refused)
        return PromptGrid(link, poll_seconds=0.0), link

    return grid_of


def test_answers_are_given_out_as_they_come_and_no_longer_asked_for(grid_of):
    one, two = answer(1), answer(2)
    grid, link = grid_of([], [two], [], [one])
    assert list(grid.send_and_receive([to(1), to(2)], timeout=60.0)) == [two, one]
    assert link.awaited == [{"to 1", "to 2"}, {"to 1", "to 2"}, {"to 1"}, {"to 1"}]


@pytest.mark.parametrize("code", [3, 4, 5])
def test_a_site_whose_answer_cannot_come_any_more_is_silent_and_not_waited_for(grid_of, code):
    grid, _ = grid_of([answer(1, Error(code, "gone")), answer(2)])
    assert [m.metadata.src_node_id for m in grid.send_and_receive([to(1), to(2)])] == [2]


def test_a_failure_at_a_site_is_an_answer(grid_of):
    failed = answer(1, Error(2, "disk is full"))
    grid, _ = grid_of([failed])
    assert list(grid.send_and_receive([to(1)])) == [failed]


def test_a_message_that_the_superlink_did_not_take_is_not_waited_for(grid_of):
    grid, link = grid_of([answer(2)], refused=[1])
    assert len(list(grid.send_and_receive([to(1), to(2)]))) == 1
    assert link.awaited == [{"to 2"}]


def test_nothing_is_waited_for_beyond_the_deadline(grid_of):
    grid, link = grid_of([answer(2)])
    assert len(list(grid.send_and_receive([to(1), to(2)], timeout=0.0))) == 1
    assert len(link.awaited) == 1


def test_no_messages_no_answers(grid_of):
    assert list(grid_of()[0].send_and_receive([], timeout=60.0)) == []


def test_small_arrays_travel_in_a_parcel_that_is_made_once_for_all_sites(grid_of):
    content = RecordDict(
        {
            "message": ConfigRecord({"header": ""}),
            "arrays": ArrayRecord([np.zeros(3), np.ones(2)]),
        }
    )
    grid, link = grid_of([answer(1, pack(content)), answer(2, pack(content))])
    answers = list(grid.send_and_receive([to(1, content), to(2, content)]))
    one, other = (message.content for message in link.taken)
    assert one is other and list(one) == ["message"] and PARCEL in one["message"]
    for each in answers:
        assert [array.numpy().tolist() for array in each.content["arrays"].values()] == [
            [0.0, 0.0, 0.0],
            [1.0, 1.0],
        ]


def test_large_answers_are_taken_one_at_a_time_and_not_held(grid_of):
    content = RecordDict({"arrays": ArrayRecord([np.zeros(LARGE, np.uint8)])})
    grid, link = grid_of([answer(1)], [answer(2)])
    answers = iter(grid.send_and_receive([to(1, content), to(2, content)]))
    first = weakref.ref(next(answers))
    assert first() is None and len(link.awaited) == 1
    assert next(answers).metadata.src_node_id == 2
    assert [len(ids) for ids in link.awaited] == [1, 1]


def test_connected_sites_are_known_by_the_names_they_were_registered_for(grid_of):
    assert grid_of()[0].connected() == {"a": 1, "b": 2}
