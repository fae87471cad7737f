"""What the client uses of Flower beyond its public API, as it was when the client was written.

Every entry is a name in `hica_client.flower_runner` (or a line of output that `hica_client.link`
reads) which a new release of Flower may change without notice. A test that fails here names it.
"""

import inspect
from pathlib import Path

import pytest

from hica_client import flower_runner, link

SIGNATURES = {
    "flwr.supernode.runtime.run_clientapp.pull_task_input": "client",
    "flwr.supernode.runtime.run_clientapp.push_message": "client, message, context",
    "flwr.supercore.interceptors.RuntimeTokenHttpInterceptor": "token",
    "flwr.supercore.interceptors.RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.interceptors.SuperExecAuthHttpInterceptor": (
        "*, master_secret, protected_methods"
    ),
    "flwr.supercore.protobuf.client.ProtobufClientInterceptor.intercept": (
        "self, context, call_next"
    ),
    "flwr.supercore.runtime.RuntimeHttpClient.from_server_address": (
        "server_address, insecure, root_certificates, interceptors, *, retry_invoker"
    ),
    "flwr.supercore.runtime.RuntimeHttpClient.AcquireTask": "self, request",
    "flwr.supercore.runtime.RuntimeHttpClient.SendTaskHeartbeat": "self, request",
    "flwr.supercore.runtime.RuntimeHttpClient.PushTaskOutput": "self, request",
    "flwr.supernode.fleet_http_client.FleetHttpClient": (
        "base_url, *, interceptors, verify, timeout, retry_invoker"
    ),
    "flwr.supernode.fleet_http_client.FleetHttpClient.DeactivateNode": "self, request",
    "flwr.supercore.protobuf.client.ProtobufRequestContext": "rpc_method, message, request",
    "flwr.supernode.node_auth_http_interceptor.NodeAuthHttpInterceptor": "private_key, public_key",
    "flwr.supernode.node_auth_http_interceptor.NodeAuthHttpInterceptor.intercept": (
        "self, context, call_next"
    ),
}

FIELDS = {
    "flwr.proto.fleet_pb2.DeactivateNodeRequest": ["node_id"],
    "flwr.proto.runtime_pb2.AcquireTaskRequest": ["supported_task_types"],
    "flwr.proto.runtime_pb2.AcquireTaskResponse": ["token"],
    "flwr.proto.runtime_pb2.PushTaskOutputRequest": ["sub_status"],
    "flwr.proto.runtime_pb2.SendTaskHeartbeatRequest": [],
    "flwr.proto.runtime_pb2.SendTaskHeartbeatResponse": ["success"],
}

VALUES = {
    "flwr.common.constant.ErrorCode.INVALID_FAB": 7,
    "flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION": 2,
    "flwr.common.constant.SubStatus.COMPLETED": "completed",
    "flwr.supercore.constant.TaskType.CLIENT_APP": flower_runner.TASK_TYPE,
    "flwr.supercore.superexec.run_superexec._SUPEREXEC_AUTH_METHODS": {flower_runner.ACQUIRE},
}

LINES = {
    "flwr.supernode.start_client_internal": [
        '"SuperNode ID: %s"',
        '"Receiving: %s message (ID: %s)"',
        '"Sending: %s message (ID: %s)"',
        '"Sent successfully"',
        '"Run ID %s is not in `RUNNING` status. Ignoring message %s."',
    ],
    "flwr.supercore.retry.http_retry": [
        '"Connection successful after %.2f seconds',
        '"Connection attempt failed, retrying',
    ],
    "flwr.supernode.fleet_http_connection": ['f"[code: {flower_error.code}]'],
}


@pytest.mark.parametrize("path", SIGNATURES)
def test_what_is_called_takes_what_it_took(path, named, parameters):
    assert parameters(named(path)) == SIGNATURES[path], f"Flower has changed {path}"


@pytest.mark.parametrize("path", FIELDS)
def test_messages_have_the_fields_that_are_used(path, named):
    fields = set(named(path).DESCRIPTOR.fields_by_name)
    assert fields >= set(FIELDS[path]), f"Flower has changed {path}"


@pytest.mark.parametrize("path", VALUES)
def test_constants_mean_what_they_meant(path, named):
    assert named(path) == VALUES[path], f"Flower has changed {path}"


def test_a_task_is_pulled_as_message_context_run_and_bundle(named):
    returned = inspect.signature(named("flwr.supernode.runtime.run_clientapp.pull_task_input"))
    assert str(returned.return_annotation).count(",") == 3
    assert [part.__name__ for part in returned.return_annotation.__args__] == [
        "Message",
        "Context",
        "Run",
        "Fab",
    ]
    assert "fab_id" in inspect.signature(named("flwr.supercore.run.Run")).parameters
    assert "content" in inspect.signature(named("flwr.supercore.fab.Fab")).parameters


@pytest.mark.parametrize("path", LINES)
def test_the_supernode_prints_the_lines_that_are_read(path, named):
    source = inspect.getsource(named(path))
    for line in LINES[path]:
        assert line in source, f"Flower no longer prints {line} in {path}"


def test_a_refused_key_ends_the_supernode_with_these_words(named):
    code = named("flwr.supercore.error.ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED")
    assert int(code) == link.ACTIVATION_FAILED
    main_loop = inspect.getsource(named("flwr.supernode.start_client_internal"))
    assert link.GRACEFUL in main_loop


def test_flower_supernode_takes_our_arguments(tmp_path, named):
    arguments = flower_runner.supernode_arguments(
        "localhost:8443", tmp_path / "ca.crt", tmp_path / "key", "127.0.0.1:9094", tmp_path / "s"
    )
    parser = named("flwr.supernode.cli.flower_supernode._parse_args_run_supernode")()
    options = parser.parse_args(arguments)
    assert options.superlink == "localhost:8443"
    assert options.root_certificates == str(tmp_path / "ca.crt")
    assert options.auth_supernode_private_key == str(tmp_path / "key")
    assert (options.isolation, options.host, options.port) == ("process", "127.0.0.1", 9094)
    assert options.superexec_auth_secret_file == str(tmp_path / "s")
    assert not options.insecure


def test_all_internals_that_are_used_are_listed_here(unlisted):
    listed = {*SIGNATURES, *FIELDS, *VALUES}
    assert unlisted(Path(flower_runner.__file__), listed) == set()
