import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from safetensors.numpy import load_file

from hica.checkpoint import write_json
from hica.study import Study, load_study, validated
from hica_server.cli import main
from hica_server.result import save_model
from hica_server.state import RunState

EXAMPLE = Path(__file__).parents[3] / "server" / "example_study.toml"


@pytest.fixture
def run_command(capsys):
    """Run `hica-server` and return (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def study() -> Study:
    return load_study(EXAMPLE)


@pytest.fixture
def finished(tmp_path, study) -> Path:
    """A run directory as `run_study` leaves it, of two made-up weights."""
    run = tmp_path / "run"
    state = RunState(
        study.sha256,
        shared={"tower.w": np.arange(6, dtype=np.float32).reshape(2, 3)},
        anchor={"classes": np.ones((3, 4), np.float32), "findings": np.ones((8, 4), np.float32)},
        centre=np.zeros((2, 4), np.float32),
    )
    save_model(run, study, state)
    write_json(run / "study.json", study.model_dump(mode="json"))
    interval = {"value": 0.8125, "low": 0.7, "high": 0.9}
    final = {"accuracy": interval, "balanced_accuracy": interval, "auroc": interval}
    result = {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "seed": 0,
        "sites": {},
        "rounds": [],
        "final": final,
        "per_site": {},
        "baselines": {},
        "versions": {"hica": "0.1.0"},
    }
    write_json(run / "result.json", result)
    return run


def test_init_writes_a_study_that_validates(run_command, tmp_path):
    code, _, _ = run_command("init", tmp_path / "new")
    assert code == 0
    assert run_command("validate", tmp_path / "new" / "study.toml")[0] == 0


def test_init_leaves_an_existing_study_alone(run_command, tmp_path):
    (tmp_path / "study.toml").write_text("mine")
    code, _, err = run_command("init", tmp_path)
    assert code == 2
    assert f"{tmp_path / 'study.toml'}: exists" in err
    assert (tmp_path / "study.toml").read_text() == "mine"


def test_every_value_the_example_shows_is_the_default(study):
    """Its header says so; [study], [model] and [[classes]] are the user's own."""
    shown = study.model_dump()
    own = {name: shown[name] for name in ("study", "model", "classes")}
    defaults = validated(Study, own, "defaults").model_dump()
    differing = {
        f"{section}.{key}": (value, defaults[section][key])
        for section, table in shown.items()
        if section not in own
        for key, value in table.items()
        if value != defaults[section][key]
    }
    assert differing == {}


def test_validate_prints_what_follows_from_the_study(run_command, study):
    code, out, _ = run_command("validate", EXAMPLE)
    assert code == 0
    said = dict(line.split(maxsplit=1) for line in out.splitlines() if line[:5] != "stage")
    assert said["classes"] == "normal, benign, malignant"
    assert said["findings"] == "8"
    assert said["sha256"] == study.sha256


def test_validate_as_json_holds_the_resolved_study_with_its_overrides(run_command):
    out = run_command("validate", EXAMPLE, "--json", "--set", "pretraining.rounds=0")[1]
    summary = json.loads(out)
    changed = load_study(EXAMPLE, ["pretraining.rounds=0"])
    assert validated(Study, summary["resolved"], "resolved") == changed
    assert summary["sha256"] == changed.sha256
    assert summary["stage_1"] == "off"
    # centre, zero-shot, prototypes, the rounds each with its centre, evaluation
    assert summary["steps"] == 4 + 2 * changed.alignment.rounds


def test_validate_lists_every_mistake_and_ends_with_2(run_command, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        EXAMPLE.read_text().replace("shots =", "shot =").replace("quorum = 2", "quorum = 0")
    )
    code, out, err = run_command("validate", path)
    assert (code, out) == (2, "")
    assert f"{path}: alignment.shot: unknown key" in err
    assert f"{path}: federation.quorum: " in err


def test_validate_with_data_embeds_the_texts(run_command, tmp_path):
    out = run_command("validate", EXAMPLE, "--json", "--data", tmp_path, "--set", "text.epochs=0")[
        1
    ]
    summary = json.loads(out)
    assert summary["trained_weights"] > 100_000
    assert len(summary["image_tower"]) == len(summary["text_bank"]) == 64
    assert -1 <= summary["nearest_class_texts"] < 0.95


def test_validate_with_data_finds_class_texts_that_cannot_be_told_apart(
    run_command, study, tmp_path
):
    table = study.model_dump(mode="json", exclude_none=True)
    table["classes"][2]["prompts"] = table["classes"][1]["prompts"]
    table["text"]["epochs"] = 0
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(table))
    code, _, err = run_command("validate", path, "--data", tmp_path)
    assert code == 2
    assert "benign" in err
    assert "malignant" in err


def test_validate_with_data_finds_a_missing_checkpoint(run_command, tmp_path):
    settings = ("model.image=timm/mobilenetv2_100", "model.train=adapter")
    overrides = [*settings, "model.checkpoint=w.safetensors", f'model.sha256="{"0" * 64}"']
    arguments = [part for override in overrides for part in ("--set", override)]
    code, _, err = run_command("validate", EXAMPLE, "--data", tmp_path, *arguments)
    assert code == 4
    assert f"{tmp_path / 'w.safetensors'}: no such weights file" in err


def test_report_is_written_anew(run_command, finished, study):
    code, out, _ = run_command("report", finished)
    page = (finished / "report.html").read_text()
    assert (code, out.strip()) == (0, str(finished / "report.html"))
    assert "81.2" in page
    assert study.sha256[:12] in page


@pytest.mark.parametrize("verb", [["report"], ["export", "--to", "model.safetensors"]])
def test_an_unfinished_run_is_refused(run_command, tmp_path, verb):
    code, _, err = run_command(*verb, tmp_path)
    assert code == 2
    assert f"{tmp_path / 'result.json'}: no such file" in err


def test_a_damaged_result_says_how_it_is_written_anew(run_command, finished):
    (finished / "result.json").write_text("{")
    code, _, err = run_command("report", finished)
    assert code == 2
    assert "result.json: cannot be read" in err
    assert "again" in err


def test_export_writes_the_trained_arrays_and_what_they_belong_to(
    run_command, finished, study, tmp_path
):
    to = tmp_path / "out" / "breast.safetensors"
    code, _, _ = run_command("export", finished, "--to", to)
    assert code == 0
    arrays = load_file(to)
    assert arrays.keys() == {"tower.w", "centre", "anchor.classes", "anchor.findings"}
    assert arrays["tower.w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    described = json.loads(to.with_suffix(".json").read_text())
    assert described["classes"] == study.class_names
    assert described["arrays"]["tower.w"] == [2, 3]
    assert described["final"]["auroc"]["value"] == 0.8125
    assert validated(Study, described["study"], "exported").sha256 == study.sha256


def test_the_exported_hash_is_the_files(run_command, finished, tmp_path):
    from hica.images.cache import file_sha256

    to = tmp_path / "m.safetensors"
    run_command("export", finished, "--to", to)
    assert json.loads(to.with_suffix(".json").read_text())["sha256"] == file_sha256(to)


def test_export_of_another_suffix_is_refused(run_command, finished, tmp_path):
    code, _, err = run_command("export", finished, "--to", tmp_path / "m.pt")
    assert code == 2
    assert "suffix .safetensors" in err


def test_export_of_a_damaged_model_is_a_checkpoint_error(run_command, finished, tmp_path):
    (finished / "model.safetensors").write_bytes(b"torn")
    code, _, err = run_command("export", finished, "--to", tmp_path / "m.safetensors")
    assert code == 4
    assert "model.safetensors: torn or damaged" in err


@pytest.mark.parametrize("verb", ["init", "validate", "report", "export"])
def test_every_verb_shows_an_example(run_command, verb):
    code, out, _ = run_command(verb, "--help")
    assert code == 0
    assert f"Example: hica-server {verb}" in " ".join(out.split())
