"""`hica-client backbone`: what is brought loads by the lines that are printed."""

import json
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


def test_a_pair_in_a_folder_brings_its_text_side(site, tmp_path, capsys) -> None:
    import transformers

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    small["num_attention_heads"] = 1
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 10, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=4,
    )
    folder = tmp_path / "clip"
    model = transformers.CLIPModel(config)
    model.save_pretrained(folder, max_shard_size="2kB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    found = brought(capsys, "import", site, folder, "--mean", *HALF, "--std", *HALF)
    assert found["model"]["text"] == "same" and found["model"]["mean"] == [0.5] * 3
    files = sorted(path.name for path in (site.parent / "weights" / "clip").iterdir())
    assert files == ["config.json", "model.safetensors"]
    assert tower_of(site, found["model"]).fingerprint == found["fingerprint"]
    assert run("import", site, folder, "--name", "two") == 4
    assert "Write model.mean and model.std into the study" in capsys.readouterr().err


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
