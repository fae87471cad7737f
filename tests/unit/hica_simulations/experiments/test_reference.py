"""No key without words, none that the page or an example lacks."""

import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from hica.study import Study
from hica_client.site import Site
from hica_server.settings import ServerSettings
from hica_simulations.experiments import reference

ROOT = Path(__file__).parents[4]
EXAMPLES = {
    "server/hica_server/example_study.toml": (Study, ("study.", "model.", "classes.")),
    "client/hica_client/example_site.toml": (Site, ("site.",)),
    "server/hica_server/example_server.toml": (ServerSettings, ()),
}
"""Example → the table that reads it, and what of it is the user's own to write."""


def keys_of(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        part = reference.part_of(field.annotation)
        if part is None:
            yield above + name, field
        else:
            yield from keys_of(part, f"{above}{name}.")


def values_of(table: dict, above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict) and above.count(".") < 1:
            yield from values_of(value, f"{above}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for each in value:
                yield from values_of(each, f"{above}{name}.")
        else:
            yield above + name, value


def test_the_page_is_what_the_tables_say():
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run: make reference"


@pytest.mark.parametrize("file", reference.FILES)
def test_every_key_has_words_and_a_line(file):
    model, name = reference.FILES[file]
    page = reference.page().partition(f"## {file}\n")[2].partition("\n## ")[0]
    keys = list(keys_of(model, f"{name}." if name else ""))
    assert [key for key, field in keys if not field.description] == []
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == [
        key.rpartition(".")[2]
        for _, table in reference.tables(model, name)
        for key, field in table.model_fields.items()
        if reference.part_of(field.annotation) is None
    ]
    assert len(lines) == len(keys)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_key_stands_in_the_example_with_its_default(example):
    """Behind # stand only keys without one; the line without # is still TOML that is read."""
    model, own = EXAMPLES[example]
    text = (ROOT / example).read_text(encoding="utf-8")
    shown = dict(values_of(tomllib.loads(text)))
    whole = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
    assert set(dict(values_of(whole))) == {key for key, _ in keys_of(model)}
    for key, field in keys_of(model):
        if field.is_required() or (key.startswith(own) and key in shown):
            continue
        default = to_jsonable_python(field.get_default(call_default_factory=True))
        if key in shown:
            found = shown[key]
            if key == "policy.kinds":  # in an order for people
                found, default = sorted(found), sorted(default)
            assert found == default, key
        else:
            assert default in (None, {}), f"{key} has a default: take the # away"


@pytest.mark.parametrize(
    ("key", "cells"),
    [
        ("shots", "| whole number, > 0 | `20` | Labelled images of each class and site"),
        ("std", "| list of 3: number, > 0, ≤ 1 | - | Their standard deviation"),
        ("max_epsilon", "| number, > 0 | - | ε that all private studies"),
        ("prompts", "| list: text | required | Whole sentences"),
        ("pad_type", '| `""`, `"same"` | `""` | timm'),
        ("request_bytes", "| whole number, ≥ 8388608 | `67108864` | Largest body"),
        ("train", '| text: "adapter", "lora", "full" or "last-N", N to 99 | `"adapter"` | What of'),
        ("prevalence", "| table: name = number, ≥ 0, ≤ 1 | `{}` | Share of each class"),
    ],
)
def test_a_line_of_the_page(key, cells):
    assert f"\n| `{key}` {cells}" in reference.page()


def test_help_is_shown_and_no_file_of_that_name_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["reference", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(reference.__name__, run_name="__main__")
    assert end.value.code == 0 and "docs/reference.md" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
