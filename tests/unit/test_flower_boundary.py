"""Flower's internals stay in named places, each listed by a test, so that an upgrade sees them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADAPTORS = {
    "common/hica": [],
    "client/hica_client": ["flower_runner.py"],
    "server/hica_server": ["superlink"],
    "simulations/hica_simulations": ["grid.py", "ray_engine.py"],
}
"""Files and folders that may use them; `test_flower_internals.py` of each package lists what."""


@pytest.mark.parametrize("package", ADAPTORS)
def test_internals_stay_in_the_adaptors(package, internals):
    folder = ROOT / package
    users = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*.py")
        if internals(path.read_text(encoding="utf-8"))
    }
    assert users == set(ADAPTORS[package])


def test_an_import_in_a_function_is_seen(internals):
    assert internals("def f():\n    from flwr.supercore import run\n") == {"flwr.supercore.run"}


def test_what_a_public_module_exports_is_no_internal(internals):
    assert internals("from flwr.serverapp.strategy import Krum\nimport flwr.app\n") == set()
    assert internals("from flwr.app.metadata import Metadata\n") == {"flwr.app.metadata.Metadata"}
    assert internals("from flwr.app import metadata\n") == {"flwr.app.metadata"}
