"""`hica-server backbone`: as the site's (`tests/unit/hica_client/test_backbone_commands.py`)."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from hica.study import load_study
from hica.towers.from_study import adapted_tower
from hica_server.cli import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, words)])
    return int(end.value.code or 0)


def test_what_is_brought_loads_in_the_coordinators_study(tmp_path, capsys) -> None:
    assert run("init", tmp_path / "study") == 0
    save_for_hf(timm.create_model("test_vit"), tmp_path / "vit", safe_serialization=True)
    capsys.readouterr()
    assert run("backbone", "import", tmp_path / "study", tmp_path / "vit", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    overrides = [f"model.{key}={json.dumps(value)}" for key, value in found["model"].items()]
    study = load_study(tmp_path / "study" / "study.toml", overrides)
    tower = adapted_tower(study, tmp_path / "study" / "data", torch.device("cpu")).tower
    assert tower.fingerprint == found["fingerprint"]


def test_a_coordinator_that_fetches_nothing(tmp_path, capsys) -> None:
    assert run("init", tmp_path / "study") == 0
    assert run("backbone", "fetch", tmp_path / "study", f"owner/vit@{'0' * 40}") == 4
    assert "fetches nothing from a hub" in capsys.readouterr().err
