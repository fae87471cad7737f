"""Reading of study and site files: TOML, overrides, and errors a user can act on."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hica.errors import ConfigurationError
from hica.study.schema import Study

Model = TypeVar("Model", bound=BaseModel)

Changes = Mapping[str, Any]
"""Settings to change: section to {key: value}, and `classes` to its list of tables."""
NO_CHANGES: Changes = MappingProxyType({})


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigurationError: The file is missing or is not TOML; names it and the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None


def apply_overrides(table: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply `a.b=value` overrides to a TOML document, the value read as TOML (bare words: strings).

    For example `["alignment.margin=0.3", "model.train=last-2"]`. The table is not modified.

    Raises:
        ConfigurationError: An override that is not `section.key=value`.
    """
    result: dict[str, Any] = json.loads(json.dumps(table))
    for override in overrides:
        dotted, separator, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not separator or not all(keys):
            raise ConfigurationError(
                f"--set {override!r}: expected section.key=value, for example alignment.margin=0.3"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        target = result
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ConfigurationError(f"--set {override!r}: {key} is not a table")
        target[keys[-1]] = value
    return result


def merged(table: Mapping[str, Any], *changes: Changes) -> dict[str, Any]:
    """A TOML document with some settings changed; `table` itself is not modified.

    Later changes go before earlier ones. A key's old value is replaced as a whole, also where it is
    a table itself.
    """
    result = dict(table)
    for change in changes:
        for section, value in change.items():
            old = result.get(section)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                result[section] = {**old, **value}
            else:
                result[section] = value
    return result


def changed(study: Study, *changes: Changes) -> Study:
    """`study` with some settings changed, as `merged` changes them, and checked anew.

    Raises:
        ConfigurationError: The settings do not go together, or there is no such key.
    """
    return validated(Study, merged(study.model_dump(mode="json"), *changes), "study")


def validated(model: type[Model], table: dict[str, Any], source: str) -> Model:
    """Check `table` against a pydantic model, with errors a user can act on.

    Raises:
        ConfigurationError: Lists every problem as `source: section.key: problem`.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"]) or "file"
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                message = "unknown key; " + _known_keys(model, problem["loc"])
            lines.append(f"{source}: {field}: {message}")
        raise ConfigurationError("\n".join(lines)) from None


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The keys allowed where an unknown one was met: `known keys: a, b, c`."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = current.model_fields[part].annotation
            arguments = getattr(annotation, "__args__", None)
            current = arguments[0] if arguments else annotation
    return "known keys: " + ", ".join(current.model_fields)


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read, override and check a study file.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    return validated(Study, apply_overrides(read_toml(path), overrides or []), str(path))
