"""`hica-sim audit` from the command line, on two small hospitals."""

import json
from pathlib import Path

import pytest
import tomli_w

from hica.study import read_toml
from hica_simulations.cli import main
from hica_simulations.experiments.audit import reconstruction, run
from hica_simulations.experiments.audit.membership import prototype_trials, update_trials

STUDY = Path(__file__).parents[2] / "simulations" / "studies" / "audit.toml"


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Of an audit that trains 12 times where it is asked for 40, and makes few class sums."""
    monkeypatch.setattr(reconstruction, "TARGETS", 3)
    monkeypatch.setattr(run, "PROTOTYPE_TRIALS", 1)
    few = {"prototypes": prototype_trials, "update": lambda *asked: update_trials(*asked[:3], 12)}
    monkeypatch.setattr(run, "ATTACKS", few)
    table = read_toml(STUDY)
    table["simulation"]["sites"] = table["simulation"]["sites"][:2]
    table["simulation"]["phantoms"] |= {"per_class": 10, "size": 32}
    table["text"] = {"epochs": 0}
    table["model"]["adapter_width"] = 8
    (tmp_path / "audit.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    small = ["--set", "alignment.shots=2", "--set", "alignment.rounds=1"]
    places = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    return ["audit", str(tmp_path / "audit.toml"), *places, *small, "--device", "cpu"]


@pytest.mark.matrix
def test_an_audit_leaves_its_tables_and_goes_on_where_it_was(
    arguments, tmp_path, capsys, monkeypatch
):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--trials", "40", "--json"])
    assert end.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["refuted"] == []
    assert set(result["settings"]) == {"none", "secure", "dp-1", "dp-3", "dp-8", "control"}
    assert len(result["membership"]) == 6 * 3 * 2 * 2
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == result
    for name in ("audit.md", "audit.csv", "audit.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0

    def never(*_):
        raise AssertionError("scores that lie on disk were made again")

    monkeypatch.setattr(run, "ATTACKS", {"prototypes": never, "update": never})
    monkeypatch.setattr(run, "reconstruct", never)
    monkeypatch.setattr(run, "plot", lambda *_: None)  # is drawn again, which takes a while
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--trials", "40"])
    assert end.value.code == 0
    assert "no privacy" in capsys.readouterr().out


def test_another_study_is_refused_in_the_same_folder(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scenario.toml").write_text("another = true")
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--trials", "40"])
    assert end.value.code == 2
    assert "holds a run of another study" in capsys.readouterr().err
