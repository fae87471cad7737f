import tomllib

from hica_simulations.experiments.tables.inline_toml import inline


def test_what_is_written_on_one_line_reads_back():
    value = [
        {"name": 'a "τ" \\ and\na line \x7f', "no": None, "x": [1, 2.5, True], "y": {"in a": {}}},
        {"name": "b", "empty": []},
    ]
    text = inline(value)
    assert "\n" not in text
    del value[0]["no"]
    assert tomllib.loads(f"value = {text}")["value"] == value
