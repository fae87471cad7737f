"""`hica-client backbone`: what is brought loads by the lines that are printed."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor

from hica.errors import HicaError
from hica.study import Study, validated
from hica.towers.from_study import adapted_tower
from hica_client.cli import main

HALF = ["0.5", "0.5", "0.5"]
COLOURS = ["--mean", *HALF, "--std", *HALF]
CLASSES = [{"name": name, "prompts": [f"a {name} mass"]} for name in ("round", "square")]


@pytest.fixture
def site(tmp_path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    (folder / "manifest.csv").write_text("image\n")
    path = folder / "site.toml"
    path.write_text('[site]\nname = "north"\n[data]\nmanifest = "manifest.csv"\n')
    return path


@pytest.fixture
def donor(tmp_path) -> tuple[Path, dict[str, Tensor]]:
    state = timm.create_model("test_vit", num_classes=3).state_dict()
    wrapped = {f"module.{name}": value.half() for name, value in state.items()}
    torch.save({"model": wrapped, "ema": wrapped, "epoch": 7}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth", state


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["backbone", *map(str, words)])
    return int(end.value.code or 0)


def brought(capsys, *words: object) -> dict:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def tower_of(site: Path, model: dict):
    study = validated(
        Study, {"study": {"name": "x"}, "model": model, "classes": CLASSES}, "study.toml"
    )
    return adapted_tower(study, site.parent / "weights", torch.device("cpu")).tower


def test_a_checkpoint_becomes_safe_and_loads_by_the_lines_printed(site, donor, capsys) -> None:
    path, state = donor
    import_ = ["import", site, path, "--architecture", "timm/test_vit", *COLOURS]
    assert run(*import_, "--resize", "longest") == 0
    printed = capsys.readouterr().out
    assert "longest side, the rest is black (mine.json)" in printed
    assert "note: of ema, model, ema is taken" in printed
    model = tomllib.loads(printed.partition("For study.toml:")[2])["model"]
    assert model["checkpoint"] == "mine.safetensors"
    tower = tower_of(site, model)
    assert tower.fingerprint in printed.replace(" ", "").replace("\n", "")
    assert torch.equal(tower.trunk.pos_embed, state["pos_embed"].half().float())
    assert tower.preprocess.resize == "longest"
    assert not list((site.parent / "weights").glob(".*"))


def test_the_same_again_is_the_same_and_another_is_not_put_in_its_place(
    site, donor, capsys
) -> None:
    path, _state = donor
    import_ = ["import", site, path, "--architecture", "timm/test_vit", *COLOURS]
    first = brought(capsys, *import_)
    assert brought(capsys, *import_) == first
    assert run(*import_, "--resize", "shortest") == 2
    assert "mine.json: another one is there" in capsys.readouterr().err
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    assert run(*import_) == 2
    assert "mine.safetensors: another one is there" in capsys.readouterr().err
    assert (
        brought(capsys, *import_, "--name", "other")["model"]["checkpoint"] == "other.safetensors"
    )
    assert tower_of(site, first["model"]).fingerprint == first["fingerprint"]


def test_a_bare_file_asks_and_offers_the_architectures_values(site, donor, capsys) -> None:
    assert run("import", site, donor[0], "--architecture", "timm/test_vit") == 4
    words = capsys.readouterr().err
    assert "nothing says how images are prepared" in words
    assert "timm's test_vit has --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5" in words
    assert not (site.parent / "weights").exists()


def test_the_json_beside_a_file_goes_with_it(site, donor, capsys) -> None:
    said = {"size": 96, "mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bilinear"}
    sidecar = {"preprocess": {**said, "resize": "shortest"}}
    donor[0].with_suffix(".json").write_text(json.dumps(sidecar))
    found = brought(capsys, "import", site, donor[0], "--architecture", "timm/test_vit")
    written = json.loads((site.parent / "weights" / "mine.json").read_text())
    assert written["preprocess"] == {**said, "resize": "shortest", "pad_type": ""}
    assert written["sha256"] == found["model"]["sha256"]
    assert found["grid"] == 6


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_the_hub_becomes_safe_and_loads(site, tmp_path, capsys, safe) -> None:
    model = timm.create_model("test_vit", num_classes=3)
    save_for_hf(model, tmp_path / "vit", safe_serialization=safe)
    (tmp_path / "vit" / "README.md").write_text("words")
    found = brought(capsys, "import", site, tmp_path / "vit")
    assert found["model"]["image"] == "hf:vit" and "text" not in found["model"]
    files = sorted(path.name for path in (site.parent / "weights" / "vit").iterdir())
    assert files == ["config.json", "model.safetensors"]
    assert tower_of(site, found["model"]).fingerprint == found["fingerprint"]
    assert brought(capsys, "import", site, tmp_path / "vit") == found
    (tmp_path / "vit" / "config.json").write_text(
        (tmp_path / "vit" / "config.json").read_text() + " "
    )
    assert run("import", site, tmp_path / "vit") == 2
    assert "vit: another one is there" in capsys.readouterr().err
    assert not list((site.parent / "weights").glob(".*"))


@pytest.fixture
def clip(tmp_path) -> Path:
    """What `CLIPModel.save_pretrained` writes: no tokenizer, nothing of how images are prepared."""
    import transformers

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    small["num_attention_heads"] = 1
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 10, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=4,
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip", max_shard_size="2kB")
    return tmp_path / "clip"


def add_tokenizer(folder: Path, words: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", "mass", "bone", *map(str, range(words))]
    names[-3:] = ["a", "round", "lung"]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special).save_pretrained(
        folder
    )


def test_a_pair_in_a_folder_brings_its_text_side(site, clip, capsys) -> None:
    add_tokenizer(clip, words=4)
    assert len(list(clip.glob("model-*.safetensors"))) > 1
    found = brought(capsys, "import", site, clip, *COLOURS)
    assert found["model"]["text"] == "same" and found["model"]["mean"] == [0.5] * 3
    assert found["notes"] == []
    files = sorted(path.name for path in (site.parent / "weights" / "clip").iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert tower_of(site, found["model"]).fingerprint == found["fingerprint"]


def test_a_pair_without_a_tokenizer_says_which_files_to_add(site, clip, capsys) -> None:
    found = brought(capsys, "import", site, clip, *COLOURS)
    assert "text" not in found["model"]
    (note,) = found["notes"]
    assert note.startswith('no text = "same", for its text side cannot be used: ')
    assert f"{clip}: its tokenizer could not be loaded" in note
    assert "put tokenizer.json and tokenizer_config.json there" in note
    assert note.endswith("then import the folder again, under another --name")
    assert run("import", site, clip, *COLOURS) == 0
    printed = capsys.readouterr().out
    assert 'note: no text = "same"' in printed
    assert "text" not in tomllib.loads(printed.partition("For study.toml:")[2])["model"]
    add_tokenizer(clip, words=4)
    again = brought(capsys, "import", site, clip, *COLOURS, "--name", "whole")
    assert again["model"]["text"] == "same"


@pytest.mark.parametrize("tokenizer", [{}, {"hf_tokenizer_name": "owner/nowhere"}])
def test_a_checkpoint_of_a_pair_has_its_text_side_tried(site, tmp_path, capsys, tokenizer) -> None:
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {**text, **tokenizer}}
    (tmp_path / "import-mini.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    state = open_clip.create_model("import-mini", load_weights=False).state_dict()
    torch.save(state, tmp_path / "pair.pt")
    words = [tmp_path / "pair.pt", "--architecture", "import-mini", *COLOURS]
    found = brought(capsys, "import", site, *words)
    if not tokenizer:
        assert found["model"]["text"] == "same"
        return
    assert "text" not in found["model"]
    (note,) = [note for note in found["notes"] if note.startswith("no text")]
    assert "its tokenizer could not be loaded" in note
    assert "beside the file of model.checkpoint; they are taken from nowhere else; then" in note
    assert note.endswith('then write text = "same" into [model]')
    add_tokenizer(site.parent / "weights", words=4)
    assert brought(capsys, "import", site, *words)["model"]["text"] == "same"


def test_a_tokenizer_of_another_model_is_no_text_side(site, clip, capsys) -> None:
    add_tokenizer(clip, words=40)
    found = brought(capsys, "import", site, clip, *COLOURS)
    assert "text" not in found["model"]
    assert "its tokenizer has more words than the text side; put" in found["notes"][0]


def test_a_folder_that_says_no_colours_is_asked_for_its_file_and_offered_no_values(
    site, clip, capsys
) -> None:
    assert run("import", site, clip) == 4
    words = capsys.readouterr().err
    assert f"{clip}: has no preprocessor_config.json" in words
    assert "put it there from the model's page, or write model.mean and model.std" in words
    assert "(in backbone import: --mean and --std)" in words
    assert "0.5" not in words and "of hf:clip" not in words
    assert run("import", site, clip, "--mean", *HALF) == 4
    assert (
        "or write model.std into the study (in backbone import: --std)" in capsys.readouterr().err
    )
    (clip / "preprocessor_config.json").write_text('{"size": 16}')
    assert run("import", site, clip) == 4
    words = capsys.readouterr().err
    assert "preprocessor_config.json has no image_mean" in words and "put the whole file" in words


def test_what_no_file_says_is_told_as_built(site, clip, capsys) -> None:
    told = brought(capsys, "import", site, clip, *COLOURS)["preprocess"]
    assert told["size"] == "16 (config.json of hf:clip)"
    assert told["mean"] == "0.5 0.5 0.5 (study)"
    assert told["interpolation"] == "bicubic (as built)"
    assert told["resize"] == "squash, which loses the aspect ratio (as built)"
    processor = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "size": 16, "crop_size": 16}
    (clip / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    told = brought(capsys, "import", site, clip, "--name", "newer")["preprocess"]
    assert told["mean"] == "0.1 0.1 0.1 (processor_config.json of hf:clip)"


@pytest.mark.parametrize("form", ["file", "folder"])
def test_weights_whose_embeddings_are_not_finite_are_refused(site, tmp_path, capsys, form) -> None:
    model = timm.create_model("test_vit", num_classes=3)
    with torch.no_grad():
        model.norm.weight.fill_(3e38)  # finite, but not times the features
    if form == "file":
        torch.save(model.state_dict(), tmp_path / "broken")
        more = ["--architecture", "timm/test_vit", *COLOURS]
    else:
        save_for_hf(model, tmp_path / "broken", safe_serialization=True)
        more = []
    assert run("import", site, tmp_path / "broken", *more) == 4
    words = capsys.readouterr().err
    assert "broken: a test image of grey noise becomes NaN or infinite, so these weights" in words
    assert not (site.parent / "weights").exists()


def test_a_projection_beside_a_backbone_is_told_with_a_line_that_works(
    site, donor, tmp_path, capsys
) -> None:
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    before = "module._orig_mod."
    mixed = {f"{before}backbone.{key}": value for key, value in state.items()}
    torch.save({"model": {**mixed, f"{before}proj.weight": torch.ones(1)}}, tmp_path / "FILE")
    architecture = ["--architecture", "timm/test_vit", *COLOURS]
    assert run("import", site, tmp_path / "FILE", *architecture) == 4
    words = capsys.readouterr().err
    assert (
        "the names below backbone. fit this model, and beside them is proj.weight. Save only"
        in words
    )
    assert "missing" not in words
    line = words.partition('python -c "')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True)
    assert torch.load(tmp_path / "plain.pth").keys() == state.keys()
    brought(capsys, "import", site, tmp_path / "plain.pth", *architecture)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 4, "nowhere: no such file or folder; name the weights that you have"),
        (["{file}"], 2, "a file does not say which model it is of; give --architecture"),
        (["{folder}", "--architecture", "timm/test_vit"], 2, "leave out --architecture"),
        (["{folder}", "--resize", "squash"], 2, "leave out --resize"),
        (["{folder}", "--pad-type", "same"], 2, "leave out --pad-type"),
        (["{folder}"], 4, "no weights in it; put one of"),
        (["{file}", "--architecture", "timm/test_vit", "--name", "../x"], 2, "--name ../x: up to"),
        (["{file}", "--architecture", "timm/test_resnet", *COLOURS], 4, "not weights of timm"),
        (["{file}", "--architecture", "timm/nothing", *COLOURS], 2, "timm has no such model"),
        (["{file}", "--resize", "round"], 2, "options: resize: Input should be 'squash'"),
        (["{file}", "--std", "0", "1", "1"], 2, "options: std.0: Input should be greater"),
    ],
)
def test_what_cannot_be_brought(site, donor, tmp_path, capsys, words, code, said) -> None:
    (tmp_path / "empty").mkdir()
    named = {"file": donor[0], "folder": tmp_path / "empty"}
    assert run("import", site, *(word.format(**named) for word in words)) == code
    assert said in capsys.readouterr().err
    assert not (site.parent / "weights").exists()


def test_fetching_is_for_machines_that_may_and_names_that_are_pinned(
    site, tmp_path, capsys, monkeypatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert run("fetch", site, f"owner/vit@{commit}") == 4
    assert "fetches nothing from a hub; set hubs = true in [data]" in capsys.readouterr().err
    site.write_text(site.read_text() + "hubs = true\n")
    assert run("fetch", site, "owner/vit") == 4
    assert "not pinned" in capsys.readouterr().err
    cache = tmp_path / "hub" / "models--owner--vit" / "snapshots" / commit
    save_for_hf(timm.create_model("test_vit"), cache, safe_serialization=True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(cache))
    found = brought(capsys, "fetch", site, f"owner/vit@{commit}")
    assert found["model"]["image"] == "hf:vit"
    assert tower_of(site, found["model"]).fingerprint == found["fingerprint"]


def test_an_import_that_is_stopped_leaves_nothing(site, donor, monkeypatch) -> None:
    from hica.towers import backbone

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backbone, "save_file", stop)
    import_ = ["import", site, donor[0], "--architecture", "timm/test_vit", *COLOURS]
    assert run(*import_) == 130
    assert list((site.parent / "weights").iterdir()) == []


def test_a_disk_that_is_full_is_said(site, donor, monkeypatch, capsys) -> None:
    from hica.towers import backbone

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backbone, "save_file", full)
    assert run("import", site, donor[0], "--architecture", "timm/test_vit", *COLOURS) == 7
    assert "cannot be written: No space left on device" in capsys.readouterr().err


def test_bad_names_are_the_familys_errors() -> None:
    from hica.towers.preprocessing import UnknownTransformError

    assert issubclass(UnknownTransformError, HicaError)
    assert "not those that the study names" in UnknownTransformError("secret").outside
