"""Reading of study and site files: TOML, overrides, and errors a user can act on."""

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hica.errors import ConfigurationError
from hica.storage import read_file
from hica.study.schema import Study

Model = TypeVar("Model", bound=BaseModel)

Changes = Mapping[str, Any]
"""Settings to change: section to {key: value}, and `classes` to its list of tables."""
NO_CHANGES: Changes = MappingProxyType({})


def read_text(path: Path) -> str:
    """The text of a TOML file, without the mark that Windows editors put before UTF-8.

    Raises:
        ConfigurationError: The file is missing, cannot be read, or is not in UTF-8.
    """
    try:
        data = read_file(path)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; name a TOML file that this user may read"
        ) from None
    except UnicodeDecodeError:
        text = "\0"  # what UTF-16 of plain letters is full of, with or without a mark
    if "\0" in text:
        raise ConfigurationError(
            f"{path}: not UTF-8, which TOML is written in; save it anew in the encoding UTF-8"
        )
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigurationError: The file is missing, cannot be read, or is not TOML; names it and the
            line.
    """
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOML's own, and of numbers that are too long
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(
            f"{path}: not valid TOML: too many brackets in each other"
        ) from None


def apply_overrides(table: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply `a.b=value` overrides to a TOML document, the value read as TOML (bare words: strings).

    For example `["alignment.margin=0.3", "model.train=last-2"]`. The table is not modified.

    Raises:
        ConfigurationError: An override that is not `section.key=value`.
    """
    result = copy.deepcopy(table)
    for override in overrides:
        dotted, separator, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not separator or not all(keys):
            raise ConfigurationError(
                f"--set {override!r}: expected section.key=value, for example alignment.margin=0.3"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
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
    current = model
    for part in location[:-1]:
        field = current.model_fields.get(str(part))
        if field is None:  # the number of a list, the name in a table of tables
            continue
        kinds = [field.annotation, *get_args(field.annotation)]
        current = next(each for each in kinds if _is_model(each))
    return "known keys: " + ", ".join(current.model_fields)


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read, override and check a study file.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    return validated(Study, apply_overrides(read_toml(path), overrides or []), str(path))
