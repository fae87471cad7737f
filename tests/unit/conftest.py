"""What is looked at of Flower's internals, for both sides alike."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy")
"""The modules of Flower that are meant to be used; other names may change without notice."""


@pytest.fixture(scope="session")
def named() -> Callable[[str], Any]:
    """The object of a dotted path of Flower's; fails with the path where it has moved."""
    return _named


@pytest.fixture(scope="session")
def parameters() -> Callable[[Callable], str]:
    """Names of a function's parameters as they are written, without types and defaults."""
    return _parameters


@pytest.fixture(scope="session")
def internals() -> Callable[[str], set[str]]:
    """Dotted names that Python source imports of Flower and that no public module exports."""
    return _internals


def _internals(source: str) -> set[str]:
    """Looks into functions, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if not _is_exported(node.module, alias.name)
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name not in PUBLIC}
    return {name for name in found if name.split(".")[0] == "flwr"}


def _is_exported(module: str, name: str) -> bool:
    return module in PUBLIC and name in importlib.import_module(module).__all__


@pytest.fixture(scope="session")
def unlisted(internals) -> Callable[[Path, set[str]], set[str]]:
    """`unlisted(file or folder, names)`: internals that are used there and are not named."""

    def unlisted(place: Path, listed: set[str]) -> set[str]:
        files = place.rglob("*.py") if place.is_dir() else [place]
        used = {name for file in files for name in internals(file.read_text(encoding="utf-8"))}
        assert used
        return {
            name
            for name in used
            if not any(path == name or path.startswith(f"{name}.") for path in listed)
        }

    return unlisted


def _named(path: str):
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            if not hasattr(found, name):
                pytest.fail(f"Flower has moved {path}")
            found = getattr(found, name)
        return found
    return pytest.fail(f"Flower has moved {path}")


def _parameters(function) -> str:
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=parameter.empty, default=parameter.empty)
        for parameter in signature.parameters.values()
    ]
    plain = signature.replace(parameters=bare, return_annotation=signature.empty)
    return str(plain).strip("()")
