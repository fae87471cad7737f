import httpx
import pytest
from flwr.proto.control_pb2 import (
    ListNodesResponse,
    ListRunsResponse,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus

from hica.deployment.bundle import BUNDLE_SHA256
from hica.errors import FederationError
from hica_server.provision import make_authority
from hica_server.settings import Folder
from hica_server.superlink.control import Control, Node, UnreachableError


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
