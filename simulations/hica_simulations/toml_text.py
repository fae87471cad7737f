"""Tables written as TOML, so that a resolved study can be read, changed and run again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Write `table` as TOML; keys of None are left out, as TOML has no null.

    Args:
        table: Strings, numbers, booleans, lists of these or of tables, and tables.
        path: Where the table lies in the document.
    """
    values, below = [], []
    for key, value in table.items():
        inner = (*path, key)
        if isinstance(value, Mapping):
            below.append(f"\n[{_dotted(inner)}]\n{to_toml(value, inner)}")
        elif _is_list_of_tables(value):
            below += [f"\n[[{_dotted(inner)}]]\n{to_toml(item, inner)}" for item in value]
        elif value is not None:
            values.append(f"{_dotted((key,))} = {_value(value)}\n")
    return "".join([*values, *below])


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, Mapping) for x in value)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(key if BARE_KEY.fullmatch(key) else _value(key) for key in path)


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        parts = [_value(item) for item in value]
        line = "[" + ", ".join(parts) + "]"
        return line if len(line) < 80 else "[\n" + "".join(f"  {part},\n" for part in parts) + "]"
    # JSON's strings, numbers and booleans are TOML's, but for the control character 127.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
