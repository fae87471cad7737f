"""What is looked at of Flower's internals, for both sides alike."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def named() -> Callable[[str], Any]:
    """The object of a dotted path of Flower's; fails with the path where it has moved."""
    return _named


@pytest.fixture(scope="session")
def parameters() -> Callable[[Callable], str]:
    """Names of a function's parameters as they are written, without types and defaults."""
    return _parameters


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
