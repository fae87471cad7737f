import json
import tomllib

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from hica_simulations.experiments.benchmarks.engines import adapter_arrays
from hica_simulations.experiments.benchmarks.stock_app import server, with_torch, without_torch
from hica_simulations.experiments.benchmarks.stock_flower import write_app
from hica_simulations.grid import run_in_process


def test_the_app_is_written_as_flower_takes_it(tmp_path):
    write_app(tmp_path / "app", "without_torch", {"sites": 2, "rounds": 10})
    written = {
        str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.suffix != ".pyc"
    }
    assert {
        "app/pyproject.toml",
        "app/stock_app/__init__.py",
        "app/stock_app/server.py",
        "app/stock_app/without_torch.py",
    } <= written
    settings = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]
    assert settings["app"]["components"] == {
        "serverapp": "stock_app.server:app",
        "clientapp": "stock_app.without_torch:app",
    }
    assert settings["app"]["config"] == {"sites": 2, "rounds": 10, "result": ""}


def test_an_app_is_written_anew(tmp_path):
    (tmp_path / "app" / "stock_app").mkdir(parents=True)
    (tmp_path / "app" / "stock_app" / "old.py").touch()
    write_app(tmp_path / "app", "with_torch", {})
    assert not (tmp_path / "app" / "stock_app" / "old.py").exists()


def test_its_weights_are_as_many_as_the_tiny_adapters():
    ours = sum(array.size for array in adapter_arrays().values())
    assert sum(int(np.prod(shape)) for shape in server.SHAPES.values()) == ours


def test_the_mean_is_taken_name_by_name():
    updates = [
        ArrayRecord({"w": Array(np.full(2, value)), "b": Array(np.full(1, -value))})
        for value in (1.0, 3.0)
    ]
    mean = server.mean(updates)
    assert mean["w"].numpy().tolist() == [2.0, 2.0]
    assert mean["b"].numpy().tolist() == [-2.0]


@pytest.mark.parametrize("client", [with_torch.app, without_torch.app])
def test_the_weights_come_back_changed_a_little_every_round(client, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "SHAPES", {"w": (3,)})
    seen = []
    monkeypatch.setattr(
        server, "mean", lambda updates, mean=server.mean: seen.append(updates) or mean(updates)
    )
    result = tmp_path / "result.json"
    run_stock(server.app, client, {"sites": 2, "rounds": 2, "result": str(result)})
    first, second = ([update["w"].numpy() for update in updates] for updates in seen)
    assert len(first) == len(second) == 2
    np.testing.assert_allclose(second[0], first[0] + 1e-3, rtol=1e-6)
    rounds = json.loads(result.read_text())
    assert [each.keys() for each in rounds] == [{"seconds", "training"}] * 2
    assert all(0 < each["training"] < each["seconds"] for each in rounds)


def run_stock(app: ServerApp, client: ClientApp, config: dict) -> None:
    """Run an app in this process, with that run configuration."""
    configured = ServerApp()

    @configured.main()
    def main(grid, context: Context) -> None:
        context.run_config = config
        app(grid, context)

    run_in_process(configured, client, [{}, {}])
