"""Both engines run the same apps: what the federation computes must not depend on the engine."""

import importlib.util
import os
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore import telemetry

from hica.errors import ConfigurationError, DataError, FederationError
from hica_simulations.grid import run_in_process
from hica_simulations.ray_engine import run_on_ray

SITES = [{"offset": 1.0}, {"offset": 2.0}, {"offset": -1.0, "fails": True}]

ray = pytest.mark.ray
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)


def client_app() -> ClientApp:
    """Adds the site's offset; counts its calls in the Context; the third site raises."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        if context.node_config.get("fails"):
            raise RuntimeError("no such manifest")
        calls = context.state.setdefault("calls", MetricRecord({"count": 0}))
        calls["count"] += 1
        step = context.node_config["offset"] * context.run_config["scale"]
        weight = message.content["arrays"]["weight"].numpy() + np.float32(step)
        content = RecordDict(
            {"arrays": ArrayRecord({"weight": Array(weight)}), "calls": MetricRecord(dict(calls))}
        )
        return Message(content, reply_to=message)

    return app


def averaging(result: dict) -> ServerApp:
    """Three rounds of plain averaging over the sites that answer."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        weight = np.zeros(3, dtype=np.float32)
        for _ in range(3):
            content = RecordDict({"arrays": ArrayRecord({"weight": Array(weight)})})
            nodes = list(grid.get_node_ids())
            replies = list(
                grid.send_and_receive(
                    [Message(content, node, MessageType.TRAIN) for node in nodes], timeout=1200.0
                )
            )
            good = [reply for reply in replies if reply.has_content()]
            weight = np.mean([r.content["arrays"]["weight"].numpy() for r in good], axis=0)
        result["weight"] = weight.tolist()
        result["calls"] = sorted(r.content["calls"]["count"] for r in good)
        result["errors"] = [r.error.reason for r in replies if r.has_error()]
        result["scale"] = context.run_config["scale"]

    return app


def raising(error: BaseException) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid, context):
        raise error

    return app


@ray
@needs_ray
@pytest.mark.matrix
def test_ray_computes_what_the_in_process_grid_computes():
    on_ray, in_process = {}, {}
    run_on_ray(averaging(on_ray), client_app(), SITES, {"scale": 2.0})
    run_in_process(averaging(in_process), client_app(), SITES, {"scale": 2.0})
    assert "no such manifest" in on_ray.pop("errors")[0]
    assert "no such manifest" in in_process.pop("errors")[0]
    assert on_ray == in_process == {"weight": [9.0] * 3, "calls": [3, 3], "scale": 2.0}


@ray
@needs_ray
@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_app_that_ends_itself_on_ray_is_a_failure():
    with pytest.raises(FederationError, match="gone"):
        run_on_ray(raising(SystemExit("gone")), client_app(), SITES)


@pytest.fixture
def no_ray(monkeypatch):
    """Ray as a machine with two cores, and Flower's simulation as a call of the ServerApp."""
    machine = {"Alive": True, "Resources": {"CPU": 2.0}}
    stub = SimpleNamespace(
        is_initialized=lambda: True, nodes=lambda: [machine], shutdown=lambda: None
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "ray", stub)

    def run(server_app, client_app, num_supernodes, backend_config):
        partitions = [{"partition-id": i} for i in range(num_supernodes)]
        with suppress(SystemExit):  # it ends the thread in which Flower runs the ServerApp
            run_in_process(server_app, client_app, partitions)

    monkeypatch.setattr("flwr.simulation.run_simulation", run)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (DataError("manifest.csv: line 3"), DataError),
        (ValueError("no quorum rule"), FederationError),
        (KeyError("round"), FederationError),
        (SystemExit("gone"), FederationError),
    ],
)
def test_what_the_server_app_raises_reaches_the_caller(no_ray, error, seen):
    with pytest.raises(seen) as caught:
        run_on_ray(raising(error), client_app(), SITES)
    assert str(error) in str(caught.value)


@pytest.mark.parametrize("resources", [{"num_gpus": 1.0}, {"num_cpus": 3.0}, {"num_cpus": 0.0}])
def test_a_site_no_machine_can_hold_is_refused_before_the_run(no_ray, resources):
    with pytest.raises(ConfigurationError, match="no machine can hold a site with num_cpus = "):
        run_on_ray(averaging({}), client_app(), SITES, {"scale": 1.0}, **resources)


def test_nothing_is_reported_home(no_ray, monkeypatch):
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")
    run_on_ray(averaging({}), client_app(), SITES, {"scale": 1.0})
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'hica\[ray\]'"):
        run_on_ray(averaging({}), client_app(), SITES)


@ray
@needs_ray
@pytest.mark.matrix
def test_a_whole_study_gives_the_same_model_on_either_engine(
    federate, draw_site, toy_study, arrays_of
):
    sites = [draw_site(name) for name in ("north", "south")]
    study = toy_study("pretraining.rounds=1", "pretraining.lloyd_rounds=1", "calibration.rounds=1")
    here = federate(study, sites, "here")
    there = federate(study, sites, "there", engine=run_on_ray)
    assert there["final"] == here["final"]
    ours, rays = arrays_of("here"), arrays_of("there")
    for name in ours:
        np.testing.assert_allclose(rays[name], ours[name], rtol=0, atol=1e-6)
