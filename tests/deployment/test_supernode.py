"""The SuperNode's process ends with its connection, as Flower's own does not."""

import os
import subprocess
import sys
import threading

import pytest
import uvicorn
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hica.deployment.keys import generate
from hica.deployment.supervision import free_port
from hica_client.flower_runner import supernode_arguments
from hica_server.provision import make_authority, make_certificate
from hica_server.settings import Folder

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]


async def let_in(request: Request) -> Response:
    answer = ActivateNodeResponse(node_id=7).SerializeToString()
    return Response(answer, media_type="application/x-protobuf")


async def fail(request: Request) -> Response:
    return Response("database or disk is full", status_code=500)


@pytest.fixture
def coordinator(tmp_path):
    """A coordinator that lets every node in and then answers all it is asked with an error 500."""
    folder = Folder(tmp_path)
    make_authority(folder)
    make_certificate(folder, "localhost", days=30)
    routes = [
        Route("/v1/fleet/activate-node", let_in, methods=["POST"]),
        Route("/{path:path}", fail, methods=["POST"]),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes),
        port=free_port(),
        log_level="error",
        ssl_certfile=folder.certificate,
        ssl_keyfile=folder.key,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield folder, f"localhost:{config.port}"
    server.should_exit = True
    thread.join()


def test_it_ends_where_the_coordinator_answers_with_an_error_500(coordinator, tmp_path):
    folder, address = coordinator
    key, secret = tmp_path / "site", tmp_path / "secret"
    generate(key)
    secret.write_bytes(b"secret")
    runtime = f"127.0.0.1:{free_port()}"
    arguments = supernode_arguments(address, folder.ca_certificate, key, runtime, secret)
    off = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "hica_client.supernode", *arguments],
        env=os.environ | off,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert "SuperNode ID: 7" in ended.stdout
    assert "500 Internal Server Error" in ended.stdout
    assert ended.returncode == 1
