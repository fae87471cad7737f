"""What the server uses of Flower beyond its public API, as it was when the server was written.

Every entry is a name in `hica_server.superlink`, or something a process of Flower's is started
with, which a new release of Flower may change without notice. A test that fails here names it.
"""

import inspect
import json
import sqlite3
import tomllib
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array
from flwr.serverapp import Grid, ServerApp

from hica.deployment.bundle import BUNDLE_FOLDER
from hica_server import superlink
from hica_server.settings import Folder
from hica_server.superlink import __main__ as superlink_process
from hica_server.superlink.grid import PromptGrid
from hica_server.superlink.processes import environment, superexec_command, superlink_command

SIGNATURES = {
    "flwr.superlink.cli.flower_superlink.flower_superlink": "",
    "flwr.common.serde.fab_to_proto": "fab",
    "flwr.common.serde.user_config_to_proto": "user_config",
    "flwr.supercore.fab.Fab": "hash_str, content, verifications",
    "flwr.supercore.interceptors.RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.control.ControlHttpClient": (
        "base_url, *, interceptors, verify, timeout, retry_invoker"
    ),
    "flwr.supercore.control.ControlHttpClient.RegisterNode": "self, request",
    "flwr.supercore.control.ControlHttpClient.UnregisterNode": "self, request",
    "flwr.supercore.control.ControlHttpClient.ListNodes": "self, request",
    "flwr.supercore.control.ControlHttpClient.StartRun": "self, request",
    "flwr.supercore.control.ControlHttpClient.ListRuns": "self, request",
    "flwr.supercore.control.ControlHttpClient.StopRun": "self, request",
    "flwr.superlink.grid.HttpGrid.get_nodes": "self",
    "flwr.superlink.grid.HttpGrid.get_node_ids": "self",
    "flwr.app.message.remove_content_from_message": "message",
    "flwr.app.message.message.make_message": "metadata, content, error",
    "flwr.app.metadata.Metadata": (
        "run_id, message_id, src_node_id, dst_node_id, reply_to_message_id, group_id, created_at, "
        "ttl, message_type, src_task_id, dst_task_id"
    ),
    "flwr.common.serde.message_to_proto": "message",
    "flwr.superlink.grid.HttpGrid.set_run": "self, run",
    "flwr.supercore.runtime.RuntimeHttpClient.PushMessages": "self, request",
    "flwr.supercore.runtime.RuntimeHttpClient.PushObject": "self, request",
    "flwr.supercore.runtime.RuntimeHttpClient.PullMessages": "self, request",
    "flwr.supercore.runtime.RuntimeHttpClient.PullObject": "self, request",
    "flwr.supercore.runtime.RuntimeHttpClient.ConfirmMessageReceived": "self, request",
    "flwr.supercore.inflatable.inflatable_object.get_object_body": "object_content, cls",
    "flwr.supercore.inflatable.inflatable_object.get_object_head_values_from_object_content": (
        "object_content"
    ),
    "flwr.supercore.inflatable.inflatable_object.get_all_nested_objects": "obj",
    "flwr.supercore.inflatable.inflatable_object.get_object_tree": "obj",
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree": "tree",
    "flwr.supercore.inflatable.inflatable_object.no_object_id_recompute": "",
    "flwr.supercore.inflatable.inflatable_utils.inflate_object_from_contents": (
        "object_id, object_contents, *, keep_object_contents, objects"
    ),
}

FIELDS = {
    "flwr.proto.control_pb2.RegisterNodeRequest": ["public_key", "name"],
    "flwr.proto.control_pb2.RegisterNodeResponse": ["node_id"],
    "flwr.proto.control_pb2.UnregisterNodeRequest": ["node_id"],
    "flwr.proto.control_pb2.ListNodesRequest": [],
    "flwr.proto.control_pb2.ListNodesResponse": ["nodes_info"],
    "flwr.proto.control_pb2.StartRunRequest": ["fab", "override_config"],
    "flwr.proto.control_pb2.StartRunResponse": ["run_id"],
    "flwr.proto.control_pb2.ListRunsRequest": ["run_id"],
    "flwr.proto.control_pb2.ListRunsResponse": ["run_dict"],
    "flwr.proto.control_pb2.StopRunRequest": ["run_id"],
    "flwr.proto.node_pb2.NodeInfo": [
        "node_id",
        "name",
        "public_key",
        "status",
        "last_activated_at",
        "online_until",
        "last_deactivated_at",
    ],
    "flwr.proto.run_pb2.Run": ["status"],
    "flwr.proto.run_pb2.RunStatus": ["status", "details"],
    "flwr.proto.runtime_pb2.PushAppMessagesRequest": ["messages_list", "message_object_trees"],
    "flwr.proto.runtime_pb2.PushAppMessagesResponse": [
        "message_ids",
        "objects_to_push",
        "session_id",
    ],
    "flwr.proto.runtime_pb2.PullAppMessagesRequest": ["message_ids"],
    "flwr.proto.runtime_pb2.PullAppMessagesResponse": ["messages_list", "message_object_trees"],
    "flwr.proto.fleet_pb2.PushMessagesRequest": ["node", "messages_list", "message_object_trees"],
    "flwr.proto.node_pb2.Node": ["node_id"],
    "flwr.proto.message_pb2.Message": ["metadata"],
    "flwr.proto.message_pb2.Metadata": [
        "message_id",
        "src_node_id",
        "dst_node_id",
        "reply_to_message_id",
        "ttl",
        "created_at",
    ],
    "flwr.proto.message_pb2.ObjectTree": ["object_id", "children"],
    "flwr.proto.message_pb2.PushObjectRequest": [
        "node",
        "run_id",
        "object_id",
        "object_content",
        "session_id",
    ],
    "flwr.proto.message_pb2.PushObjectResponse": ["stored"],
    "flwr.proto.message_pb2.PullObjectRequest": ["node", "run_id", "object_id"],
    "flwr.proto.message_pb2.PullObjectResponse": ["object_found", "object_content"],
    "flwr.proto.message_pb2.ConfirmMessageReceivedRequest": [
        "node",
        "run_id",
        "message_object_id",
    ],
}

VALUES = {
    "flwr.supercore.constant.SQLITE_PRAGMAS": (
        ("busy_timeout", "5000"),
        ("journal_mode", "WAL"),
        ("synchronous", "NORMAL"),
        ("foreign_keys", "ON"),
        ("cache_size", "-64000"),
        ("temp_store", "MEMORY"),
        ("mmap_size", "268435456"),
    ),
    "flwr.common.constant.SUPERLINK_NODE_ID": 1,
    "flwr.common.constant.ErrorCode.UNKNOWN": 0,
    "flwr.common.constant.ErrorCode.NODE_UNAVAILABLE": 5,
    "flwr.common.constant.ErrorCode.MESSAGE_UNAVAILABLE": 3,
    "flwr.common.constant.ErrorCode.REPLY_MESSAGE_UNAVAILABLE": 4,
    "flwr.common.constant.Status.FINISHED": "finished",
    "flwr.supercore.constant.NodeStatus.ONLINE": "online",
    "flwr.supercore.constant.NodeStatus.UNREGISTERED": "unregistered",
}

TYPES_ONLY = {
    "flwr.supercore.sql_mixin",
    "flwr.supercore.inflatable.inflatable_object.InflatableObject",
    "flwr.supercore.run.Run",
}
"""Named in annotations, or looked into by a test of its own."""


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


def test_a_grid_has_what_our_own_is_made_of(named):
    grid = named("flwr.superlink.grid.HttpGrid")("localhost:1", True, token="token")
    assert grid.node.node_id == named("flwr.common.constant.SUPERLINK_NODE_ID")
    assert isinstance(type(grid).run, property)
    assert isinstance(grid._runtime_client, named("flwr.supercore.runtime.RuntimeHttpClient"))
    grid.close()


@pytest.mark.parametrize(
    ("read_by", "words"),
    [
        ("flwr.superlink.routers.fleet.node_auth.authenticate_node", "protobuf_request.node."),
        (
            "flwr.server.superlink.linkstate.sql_linkstate.SqlLinkState.store_message_res",
            'msg_ins["dst_node_id"]) != res_metadata.src_node_id',
        ),
    ],
)
def test_flower_holds_against_each_other_what_we_leave_to_it(named, read_by, words):
    """The node and its key; the node and what it was asked. The rest is `fleet_messages`."""
    assert words in inspect.getsource(named(read_by)), f"Flower has changed {read_by}"


def test_an_array_names_its_pieces_as_we_count_them(named):
    array = Array(np.zeros(2**24, np.uint8))  # in pieces of 5 MiB, of which two are the same
    body = named("flwr.supercore.inflatable.inflatable_object.get_object_body")
    assert json.loads(body(array.deflate(), Array))["arraychunk_ids"] == [0, 1, 1, 2]


def test_a_grid_asks_for_no_more_methods_than_ours_has():
    assert Grid.__abstractmethods__ <= vars(PromptGrid).keys()


def test_flower_superlink_takes_our_arguments(tmp_path, named):
    folder = Folder(tmp_path)
    parser = named("flwr.superlink.cli.flower_superlink._parse_args_run_superlink")()
    options = parser.parse_args(superlink_command(folder, 8000, 8001)[3:])
    assert (options.host, options.port) == ("127.0.0.1", 8000)
    assert options.health_server_address == "127.0.0.1:8001"
    assert options.ssl_ca_certfile == str(folder.ca_certificate)
    assert options.ssl_certfile == str(folder.certificate)
    assert options.ssl_keyfile == str(folder.key)
    assert options.database == str(folder.database)
    assert options.superexec_auth_secret_file == str(folder.secret)
    assert options.isolation == "process"
    assert options.enable_supernode_auth
    assert not options.runtime_dependency_install
    assert not options.insecure


def test_the_health_service_may_be_left_out(tmp_path):
    command = superlink_command(Folder(tmp_path), 8000, 0)
    assert "--health-server-address" not in command


def test_flower_superexec_takes_our_arguments(tmp_path, monkeypatch, named):
    folder = Folder(tmp_path)
    parser = named("flwr.supercore.cli.flower_superexec._parse_args")()
    options = parser.parse_args(superexec_command(folder, 8000)[1:])
    assert options.runtime_api_address == "127.0.0.1:8000"
    assert options.root_certificates == str(folder.ca_certificate)
    assert options.superexec_auth_secret_file == str(folder.secret)
    assert not options.insecure


def test_the_superlink_s_database_is_set_up_as_we_want_it(tmp_path, named, monkeypatch):
    mixin = named("flwr.supercore.sql_mixin")
    assert named("flwr.supercore.constant.SQLITE_PRAGMAS") == mixin.SQLITE_PRAGMAS
    monkeypatch.setattr(mixin, "SQLITE_PRAGMAS", mixin.SQLITE_PRAGMAS)  # put back afterwards
    seen = {}

    def flower_superlink():
        connection = sqlite3.connect(tmp_path / "superlink.db")
        mixin._set_sqlite_pragmas(connection, None)
        for name in ("busy_timeout", "cache_size", "mmap_size", "journal_mode"):
            seen[name] = connection.execute(f"PRAGMA {name}").fetchone()[0]
        connection.close()

    monkeypatch.setattr(superlink_process, "flower_superlink", flower_superlink)
    with pytest.raises(SystemExit):
        superlink_process.main()
    assert seen == {
        "busy_timeout": 25000,
        "cache_size": -8000,
        "mmap_size": 0,
        "journal_mode": "wal",
    }


@pytest.mark.parametrize(
    ("variable", "read_by"),
    [
        ("FLWR_HOME", "flwr.common.constant"),
        ("FLWR_LOG_LEVEL", "flwr.supercore.logger"),
        ("FLWR_TELEMETRY_ENABLED", "flwr.supercore.telemetry"),
        ("FLWR_DISABLE_UPDATE_CHECK", "flwr.supercore.constant"),
    ],
)
def test_flower_reads_the_variables_we_set(tmp_path, variable, read_by, named):
    assert variable in environment(Folder(tmp_path))
    assert f'"{variable}"' in inspect.getsource(named(read_by)), f"Flower ignores {variable}"


def test_the_superexec_starts_the_serverapp_by_a_name_that_is_on_the_path(tmp_path, named):
    commands = named("flwr.supercore.constant.TASK_TYPE_TO_COMMAND")
    command = commands[named("flwr.supercore.constant.TaskType.SERVER_APP")]
    scripts = Path(environment(Folder(tmp_path))["PATH"].split(":")[0])
    assert (scripts / command).exists()


def test_the_bundle_names_our_serverapp(named):
    table = tomllib.loads((BUNDLE_FOLDER / "pyproject.toml").read_text())
    reference = table["tool"]["flwr"]["app"]["components"]["serverapp"]
    assert isinstance(named(reference.replace(":", ".")), ServerApp)


def test_all_internals_that_are_used_are_listed_here(unlisted):
    listed = {*SIGNATURES, *FIELDS, *VALUES, *TYPES_ONLY}
    assert unlisted(Path(superlink.__file__).parent, listed) == set()
