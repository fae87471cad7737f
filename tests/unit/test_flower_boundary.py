"""Flower's internals are used in one module of each side, so that an upgrade is looked at there."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = ("flwr.app.", "flwr.clientapp.", "flwr.serverapp.")
ADAPTORS = {"hica_client/flower_runner.py", "hica_server/superlink.py"}
PACKAGES = ("common/hica", "client/hica_client", "server/hica_server")


def internals(source: str) -> set[str]:
    """Modules of Flower, other than public ones, that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    flower = {name for name in found if name.split(".")[0] == "flwr"}
    return {name for name in flower if not f"{name}.".startswith(PUBLIC)}


@pytest.mark.parametrize("package", PACKAGES)
def test_internals_stay_in_the_adaptors(package):
    folder = ROOT / package
    others = {
        str(path.relative_to(folder.parent)): internals(path.read_text(encoding="utf-8"))
        for path in folder.rglob("*.py")
    }
    assert {name for name, found in others.items() if found} <= ADAPTORS


def test_both_adaptors_are_there_and_use_them():
    for package in PACKAGES[1:]:
        (name,) = (a for a in ADAPTORS if a.startswith(Path(package).name))
        source = (ROOT / package).parent / name
        assert internals(source.read_text(encoding="utf-8"))


def test_an_import_in_a_function_is_seen():
    assert internals("def f():\n    from flwr.supercore import run\n") == {"flwr.supercore"}
    assert internals("from flwr.serverapp.strategy import Krum\nimport flwr.app\n") == set()
