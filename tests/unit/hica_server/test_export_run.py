"""`hica-server export` and `verify` on the folder of a finished run."""

import json
import shutil

import pytest

from hica.export import folder as forms
from hica.steps.model_file import save_model
from hica.wire.checkpoint import write_json
from hica_server.cli import main
from hica_server.publication import make_bank, publish
from hica_server.state import RunState

INTERVAL = {"value": 0.8125, "low": 0.7, "high": 0.9}
MEASURED = {"n": 9, "accuracy": INTERVAL, "balanced_accuracy": INTERVAL, "auroc": None}


@pytest.fixture
def run_command(capsys):
    """Run `hica-server` and return (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory, toy_study):
    """A coordinator's folder with a run that has come to its end; nothing was trained."""
    root = tmp_path_factory.mktemp("coordinator") / "my-study"
    for arguments in (["init", root], ["provision", root]):
        with pytest.raises(SystemExit):
            main([str(each) for each in arguments])
    study = toy_study("model.image=timm/test_efficientnet", "model.image_size=64")
    study = study.model_copy(update={"model": study.model.model_copy(update={"train": "last-1"})})
    run = root / "run"
    publish(study, run, root, lambda study, dim: make_bank(study, dim, root))
    state = RunState.load(run, study.sha256)
    save_model(run, study, state.learnt, preprocess=state.preprocess)
    result = {
        "study": "toy",
        "study_sha256": study.sha256,
        "seed": 0,
        "sites": {"north": {"labelled": 8, "unlabelled": 9, "test": 9, "classes": {"round": None}}},
        "rounds": [],
        "final": MEASURED,
        "per_site": {"north": MEASURED},
        "baselines": {"zero_shot": None},
        "versions": {},
    }
    write_json(run / "result.json", result)
    return root


@pytest.fixture
def coordinator(made, tmp_path, monkeypatch):
    """A copy of it; of the forms the fast ones are written."""
    few = {name: form for name, form in forms.FORMS.items() if name != "onnx"}
    monkeypatch.setattr(forms, "FORMS", few)
    return shutil.copytree(made, tmp_path / "my-study")


def test_an_export_is_signed_by_the_coordinator_and_verified(run_command, coordinator, tmp_path):
    (coordinator / "run" / "audit.md").write_text("nothing leaked")
    to = tmp_path / "model"
    code, out, _ = run_command("export", coordinator, "--to", to)
    assert code == 0 and "forms: open_clip, hugging_face" in out
    signer = next(line.split()[1] for line in out.splitlines() if line.startswith("signed"))
    assert signer.startswith("SHA256:")
    card = json.loads((to / "model_card.json").read_text())
    assert [row["of"] for row in card["measured"]] == ["all hospitals", "north"]
    assert card["leakage_audit"] == ["audit.md"] and (to / "audit.md").exists()
    assert "north took part" in card["approvals"][0]
    code, out, _ = run_command("verify", to)
    assert code == 0 and signer in out and "by telephone" in out
    code, out, _ = run_command("verify", to, "--fingerprint", signer, "--json")
    assert (code, json.loads(out)["signer"]) == (0, signer)
    (to / "text" / "names.json").write_text("{}")
    code, _, err = run_command("verify", to)
    assert code == 3 and f"{to}/text/names.json: was changed" in err
    assert run_command("verify", to, "--fingerprint", "SHA256:other")[0] == 3


def test_a_run_outside_a_coordinators_folder_is_not_signed(run_command, coordinator, tmp_path):
    shutil.move(coordinator / "run", tmp_path / "demo")
    code, out, _ = run_command("export", tmp_path / "demo", "--to", tmp_path / "model", "--json")
    assert code == 0 and json.loads(out)["classes"] == ["round", "square"]
    code, _, err = run_command("verify", tmp_path / "model")
    assert code == 3 and "nobody has signed it" in err
    code, out, _ = run_command("verify", tmp_path / "model", "--unsigned")
    assert code == 0 and "signed   by nobody" in out


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_loaded(
    run_command, coordinator, tmp_path
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    code, _, err = run_command("export", coordinator, "--to", tmp_path / "full")
    assert code == 2 and "is not empty and is left alone; name a new folder" in err


def test_another_tower_than_the_runs_is_refused(run_command, coordinator, tmp_path):
    sha = json.loads((coordinator / "run" / "result.json").read_text())["study_sha256"]
    state = RunState.load(coordinator / "run", sha)
    state.tower = "0" * 64
    state.save(coordinator / "run")
    code, _, err = run_command("export", coordinator, "--to", tmp_path / "model")
    assert code == 4 and "timm/test_efficientnet is here another than in the study's run" in err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["result.json", "model.json"])
def test_files_of_two_studies_are_refused(run_command, coordinator, tmp_path, name):
    table = json.loads((coordinator / "run" / name).read_text())
    write_json(coordinator / "run" / name, table | {"study_sha256": "0" * 64})
    code, _, err = run_command("export", coordinator, "--to", tmp_path / "model")
    assert code == 2 and "its files are of different studies" in err
