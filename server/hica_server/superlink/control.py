"""Client of the SuperLink's Control API: registered nodes, runs."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import httpx
from flwr.common.constant import Status
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from hica.deployment.bundle import BUNDLE_SHA256, build
from hica.errors import FederationError
from hica_server.settings import Folder
from hica_server.superlink.processes import LOOPBACK

TIMEOUT_SECONDS = 10.0

Request = TypeVar("Request")
Response = TypeVar("Response")


class UnreachableError(Exception):
    """The SuperLink does not answer at this moment: it is starting, or too busy."""


@dataclass(frozen=True)
class Node:
    """A registered SuperNode."""

    id: int
    """Flower's number of it."""
    name: str
    """The site it was registered for."""
    public_key: bytes
    """PEM."""
    online: bool
    """Whether it has sent a heartbeat within Flower's patience (60 s)."""
    since: str
    """Time (ISO 8601) of its last change between online and offline; "" before the first."""
    online_until: float = 0.0
    """Until when it counts as online, in seconds since 1970: every heartbeat moves it."""


@dataclass(frozen=True)
class RunStatus:
    """Where a Flower run stands."""

    finished: bool
    """Whether it has ended, however it did."""
    details: str
    """Why it failed, in Flower's words; "" where it did not."""


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
        """Register the SuperNode with this key (PEM); returns its node id."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(_called(self._client.RegisterNode, request).node_id)

    def unregister(self, node: int) -> None:
        """Unregister a SuperNode, so that it is not let in any more."""
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
                info.online_until,
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
