from __future__ import annotations

import tomllib

from hica_simulations.toml_text import to_toml


def test_what_is_written_reads_back():
    table = {
        "title": 'quoted "τ" \\ and\na new line \x7f',
        "numbers": [1, 2.5, -3e-05],
        "yes": True,
        "sentences": ["a long sentence about a mass with an indistinct margin"] * 3,
        "empty": {},
        "section": {"key": 1, "in a mass": "quoted key", "deeper": {"x": [[1], [2]]}},
        "rows": [{"name": "a", "where": {"split": "test"}}, {"name": "b", "below": [{"z": 1}]}],
    }
    assert tomllib.loads(to_toml(table)) == table


def test_none_is_left_out():
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None, "d": 0}})) == {"b": {"d": 0}}
