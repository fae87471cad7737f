import hashlib
import json

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from hica.errors import CheckpointError
from hica_server.findings.model_folder import folder_sha256, load, locate


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub on a machine without network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_folder_is_taken_as_it_is(save_model):
    folder = save_model("oval shape")
    assert locate(str(folder)) == folder


def test_a_name_is_looked_for_in_the_cache_of_the_hub(cache, save_model):
    commit = "0" * 40
    there = cache / "models--owner--little"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text(commit)
    (there / "snapshots").mkdir()
    save_model("oval shape").rename(there / "snapshots" / commit)
    assert locate(f"owner/little@{commit}") == there / "snapshots" / commit
    with pytest.raises(CheckpointError, match="not pinned"):
        locate("owner/little")


@pytest.mark.parametrize("name", ["owner/little", "little", "no/such/folder", "/no/such"])
def test_a_model_that_is_nowhere_is_named_with_the_remedy(cache, name):
    with pytest.raises(CheckpointError, match="no such folder, and no model of that name") as said:
        locate(name)
    assert str(said.value).startswith(f"{name}: ")
    assert "hf download NAME --local-dir FOLDER" in str(said.value)


def test_a_whole_model_is_loaded(save_model):
    tokenizer, model = load(save_model("oval shape"), "little")
    assert not model.training
    assert len(tokenizer) == model.config.vocab_size


def test_weights_that_could_run_code_are_refused(save_model):
    folder = save_model("oval shape")
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"little: no \*\.safetensors .*save_pretrained"):
        load(folder, "little")


def test_code_of_a_model_is_not_run(save_model, tmp_path):
    folder = save_model("oval shape")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(CheckpointError, match="code of its own is not run"):
        load(folder, "little")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_a_checkpoint_error(save_model, name):
    folder = save_model("oval shape")
    (folder / name).write_text("torn")
    with pytest.raises(CheckpointError, match="little: cannot be loaded as a causal"):
        load(folder, "little")


def test_missing_weights_are_not_drawn_at_random(save_model):
    folder = save_model("oval shape")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"its weights lack lm_head\.weight"):
        load(folder, "little")


def test_the_hash_is_that_of_sha256sum_over_the_folder(tmp_path):
    for name, text in (("b", "two"), ("a", "one"), (".hidden", "x")):
        (tmp_path / name).write_text(text)
    (tmp_path / "below").mkdir()
    listing = "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
        for name, text in (("a", "one"), ("b", "two"))
    )
    assert folder_sha256(tmp_path) == hashlib.sha256(listing.encode()).hexdigest()
