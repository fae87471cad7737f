"""What the simulations use of Flower beyond its public API, as it was when they were written.

Every entry is a name in `hica_simulations.grid` or `hica_simulations.ray_engine`, which a new
release of Flower may change without notice. A test that fails here names it.
"""

import inspect
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from hica_simulations import grid, ray_engine

SIGNATURES = {
    "flwr.supercore.run.Run.create_empty": "run_id",
    "flwr.simulation.run_simulation.run_simulation": (
        "server_app, client_app, num_supernodes, backend_name, backend_config, "
        "enable_tf_gpu_growth, verbose_logging"
    ),
}

VALUES = {
    "flwr.common.constant.ErrorCode.NODE_UNAVAILABLE": 5,
    "flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION": 2,
}

ATTRIBUTES = {
    "flwr.supercore.task_identity.TaskIdentity": ["task_id", "run_id", "node_id"],
    "flwr.supercore.telemetry": ["FLWR_TELEMETRY_ENABLED"],
}
"""Names that are set on a class or module."""


@pytest.mark.parametrize("path", SIGNATURES)
def test_what_is_called_takes_what_it_took(path, named, parameters):
    assert parameters(named(path)) == SIGNATURES[path], f"Flower has changed {path}"


@pytest.mark.parametrize("path", VALUES)
def test_constants_mean_what_they_meant(path, named):
    assert named(path) == VALUES[path], f"Flower has changed {path}"


@pytest.mark.parametrize("path", ATTRIBUTES)
def test_what_is_set_is_there(path, named):
    for name in ATTRIBUTES[path]:
        assert name in inspect.getsource(named(path)), f"Flower has changed {path}"


def test_a_message_has_the_id_that_is_written():
    grid._identify()
    message = grid._stamped(Message(RecordDict(), 1, "train"))
    assert message.metadata.message_id == message.metadata.__dict__["_message_id"] != ""


def test_a_grid_asks_for_no_more_methods_than_ours_has():
    assert Grid.__abstractmethods__ <= vars(grid.InProcessGrid).keys()


@pytest.mark.parametrize("module", [grid, ray_engine])
def test_all_internals_that_are_used_are_listed_here(module, unlisted):
    assert unlisted(Path(module.__file__), {*SIGNATURES, *VALUES, *ATTRIBUTES}) == set()
