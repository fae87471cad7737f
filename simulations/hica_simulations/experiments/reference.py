"""The page of all keys, made of the tables that read them, so that it cannot be another.

python -m hica_simulations.experiments.reference docs/reference.md
"""

import json
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from hica.storage import write_atomically
from hica.study import Study
from hica_client.site import Site
from hica_server.settings import ServerSettings
from hica_simulations.experiments.pages import Table, markdown
from hica_simulations.scenario import Simulation

HEAD = """\
# Every key of every file

Made by `make reference` from the tables that read the files. Unknown keys are refused. A key that
is left out has its default; `-` means that it has none.
"""
FILES: dict[str, tuple[type[BaseModel], str]] = {
    "study.toml": (Study, ""),
    "site.toml": (Site, ""),
    "server.toml": (ServerSettings, ""),
    "[simulation] of a study that is simulated": (Simulation, "simulation"),
}
"""Heading → the table that is read, and its own name in the file."""
BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
TYPES = {"boolean": "`true`, `false`", "integer": "whole number", "number": "number"}


def page() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD]
    for heading, (model, name) in FILES.items():
        parts.append(f"## {heading}\n")
        for title, table in tables(model, name):
            parts += [f"### `{title}`\n", f"{_sentence(table)}\n", _rows(table)]
    return "\n".join(parts)


def tables(model: type[BaseModel], name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Title and model of every table of a file, in the order of the file."""
    if name and not name.startswith("["):
        name = f"[{name}]"
    if name:
        yield name, model
    for key, field in model.model_fields.items():
        if (part := part_of(field.annotation)) is not None:
            dotted = f"{name.strip('[]')}.{key}" if name else key
            many = "list" in str(field.annotation)
            yield from tables(part, f"[[{dotted}]]" if many else f"[{dotted}]")


def part_of(annotation: Any) -> type[BaseModel] | None:
    """The table that a key holds, also where it holds a list of them; None: a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (part_of(each) for each in get_args(annotation))
    return next((each for each in found if each is not None), None)


def _rows(model: type[BaseModel]) -> str:
    """A table's keys, each with what may stand there, its default and what it means."""
    schema = model.model_json_schema()
    known, lines = schema.get("$defs", {}), []
    for key, field in model.model_fields.items():
        if part_of(field.annotation) is None:
            cells = (f"`{key}`", _allowed(schema["properties"][key], known), _default(field))
            lines.append([cell.replace("|", "\\|") for cell in (*cells, _words(field))])
    return markdown(Table(("key", "value", "default", "meaning"), lines))


def _allowed(node: dict[str, Any], known: dict[str, Any]) -> str:
    """What may stand there, from JSON Schema, in words."""
    if "$ref" in node:
        return _allowed(known[node["$ref"].rpartition("/")[2]], known)
    if "anyOf" in node:
        kinds = [_allowed(each, known) for each in node["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in node:
        return ", ".join(f"`{json.dumps(each)}`" for each in node["enum"])
    if node["type"] == "array":
        if "prefixItems" in node:
            return f"list of {len(node['prefixItems'])}: {_allowed(node['prefixItems'][0], known)}"
        return f"list: {_allowed(node['items'], known)}"
    if node["type"] == "object":
        return f"table: name = {_allowed(node['additionalProperties'], known)}"
    if node["type"] == "string":
        return "path" if node.get("format") == "path" else _text(node)
    bounds = [f"{sign} {node[name]:.12g}" for name, sign in BOUNDS.items() if name in node]
    return ", ".join([TYPES[node["type"]], *bounds])


def _text(node: dict[str, Any]) -> str:
    return f"text: {node['words']}" if "words" in node else "text"


def _default(field: FieldInfo) -> str:
    """What holds where the key is left out."""
    if field.is_required():
        return "required"
    value = to_jsonable_python(field.get_default(call_default_factory=True))
    return "-" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _words(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _sentence(model: type[BaseModel]) -> str:
    """The words of a table, without its own name, which is the heading."""
    words = " ".join(cleandoc(model.__doc__ or "").split("\n\n")[0].split())
    told = words.partition(": ")[2] or words
    return told[:1].upper() + told[1:]


def main(out: Annotated[Path, typer.Argument(help="Where the page goes.")]) -> None:
    """Write the page of all keys, for example to docs/reference.md."""
    write_atomically(out, page().encode())
    print(out)


if __name__ == "__main__":
    typer.run(main)
