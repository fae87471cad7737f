"""differences: where two studies that should be one are not, key by key."""

from typing import Any

from hica.study.schema import Study

SHOWN_KEYS = 3
"""Of the keys that differ."""


def differences(one: Study, other: Study, elsewhere: str) -> str:
    """The first keys that differ, with both values, in words; empty where all are the same.

    `elsewhere` is where `other` stands: `shots = 5, in study.json 20`.
    """
    said, meant = (_settings(each.model_dump(mode="json")) for each in (one, other))
    differ = [key for key in {**meant, **said} if said.get(key) != meant.get(key)]
    words = "; ".join(
        f"{key} = {_shown(said.get(key))}, in {elsewhere} {_shown(meant.get(key))}"
        for key in differ[:SHOWN_KEYS]
    )
    more = f"; and {len(differ) - SHOWN_KEYS} more" if len(differ) > SHOWN_KEYS else ""
    return words + more


def _settings(value: Any, key: str = "") -> dict[str, Any]:
    """A table with tables in it as one: dotted key → value."""
    if not isinstance(value, dict | list):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    flat: dict[str, Any] = {} if value else {key: value}
    for name, each in items:
        flat |= _settings(each, f"{key}.{name}" if key else str(name))
    return flat


def _shown(value: Any) -> str:
    """A setting as an error shows it."""
    return "nothing" if value is None else f"{value!r}"[:60]
