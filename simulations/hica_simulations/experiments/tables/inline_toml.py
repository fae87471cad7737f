"""Values as TOML on one line, so that an override `section.key=value` can hold lists and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def inline(value: Any) -> str:
    """Strings, numbers, booleans, lists and tables of these; keys of None are left out."""
    if isinstance(value, Mapping):
        parts = [
            f"{inline(key)} = {inline(item)}" for key, item in value.items() if item is not None
        ]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's, but for the control character 127.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
