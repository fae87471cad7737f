import json

import pytest

from hica.errors import WeightsError
from hica.model_folder import look_through, read_json


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"auto_map": {"AutoModel": "own.Own"}},  # the loaders are told not to follow it
        {"attn_implementation": "sdpa", "experts_implementation": None},
        {"trust_remote_code": False},
        {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
    ],
)
def test_usual_files_pass(tmp_path, table):
    (tmp_path / "config.json").write_text(json.dumps(table))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table))
    look_through(tmp_path, "--model")


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"trust_remote_code": True}, "trust_remote_code: would run code"),
        ({"deep": [{"custom_pipelines": {"a": {}}}]}, "custom_pipelines: would run code"),
        ({"text_config": {"attn_implementation": "owner/kernel"}}, "would fetch code from a hub"),
        ({"_attn_implementation_internal": {"": "a/b"}}, "would fetch code from a hub"),
        ({"weight_map": {"a": "/etc/passwd"}}, "a file in another folder"),
        ({"weight_map": {"a": 3}}, "a file in another folder"),
    ],
)
def test_an_entry_that_runs_code_is_named_with_file_and_remedy(tmp_path, table, named):
    (tmp_path / "generation_config.json").write_text(json.dumps(table))
    with pytest.raises(
        WeightsError, match=r"generation_config\.json: .*take the entry out"
    ) as error:
        look_through(tmp_path, "--model")
    assert named in str(error.value)


def test_a_link_out_of_the_folder_is_named(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "blob").write_text("{}")
    (folder / "vocab.json").symlink_to(tmp_path / "blob")
    look_through(folder, "--model", root=tmp_path)  # as in the cache of a hub
    with pytest.raises(WeightsError, match=r"vocab\.json: leads out of the folder that --model"):
        look_through(folder, "--model")


@pytest.mark.parametrize("text", ["torn", "[" * 100_000])
def test_a_torn_file_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json: not JSON .*fetch the model anew"):
        read_json(tmp_path / "config.json")
    with pytest.raises(
        WeightsError, match=r"other\.json: cannot be read: .*fetch the whole folder"
    ):
        read_json(tmp_path / "other.json")
