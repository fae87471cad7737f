import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import timm
import tomli_w
from safetensors.numpy import load_file
from safetensors.torch import save_file

from hica.deployment.keys import fingerprint, generate, public_path, read_public
from hica.errors import FederationError
from hica.images.cache import file_sha256
from hica.steps.model_file import save_model
from hica.steps.state import Bank, State
from hica.study import Study, load_study, validated
from hica.wire.checkpoint import write_json
from hica_server.cli import main
from hica_server.enrolment import read_sites
from hica_server.provision import expires
from hica_server.report.run_file import study_hash
from hica_server.settings import Folder, ServerSettings, load_settings

EXAMPLE = Path(__file__).parents[3] / "server" / "example_study.toml"

PREPROCESS = {"size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": "squash"}


@pytest.fixture
def run_command(capsys):
    """Run `hica-server` and return (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def coordinator(run_command, tmp_path) -> Path:
    """A folder as `init` makes it."""
    run_command("init", tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def study() -> Study:
    return load_study(EXAMPLE)


@pytest.fixture
def finished(tmp_path, study) -> Path:
    """A run directory as `run_study` leaves it, of two made-up weights."""
    run = tmp_path / "run"
    learnt = State(
        shared={"tower.w": np.arange(6, dtype=np.float32).reshape(2, 3)},
        bank=Bank(np.ones((3, 4), np.float32), np.ones((8, 4), np.float32)),
        centre=np.zeros((2, 4), np.float32),
    )
    save_model(run, study, learnt, preprocess=PREPROCESS)
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


def test_init_writes_settings_that_load(run_command, tmp_path):
    assert run_command("init", tmp_path / "new")[0] == 0
    assert (tmp_path / "new" / "server.toml").exists()
    assert load_settings(tmp_path / "new").server == ServerSettings().server


@pytest.mark.parametrize("name", ["study.toml", "server.toml"])
def test_init_leaves_what_is_there_alone(run_command, tmp_path, name):
    (tmp_path / name).write_text("mine")
    code, _, err = run_command("init", tmp_path)
    assert code == 2
    assert f"{tmp_path / name}: exists" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


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
    assert said["preprocess"] == "as built in (--data shows all of it)"
    assert said["precision"] == "float32 on the way, float32 on a CPU, bfloat16 on a GPU"


def test_validate_refuses_weights_that_come_without_their_preprocessing(run_command, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), weights)
    settings = ("model.image=timm/test_efficientnet", "model.checkpoint=w.safetensors")
    overrides = [*settings, "model.train=adapter", f'model.sha256="{file_sha256(weights)}"']
    arguments = [part for each in [*overrides, "text.epochs=0"] for part in ("--set", each)]
    code, out, _ = run_command("validate", EXAMPLE, *arguments)
    assert code == 0
    assert "preprocess  mean and std from the JSON beside the weights, which must" in out
    code, _, err = run_command("validate", EXAMPLE, "--data", tmp_path, *arguments)
    assert code == 4
    assert "nothing says how images are prepared" in err
    assert "Write model.mean and model.std into the study, or put w.json beside" in err
    colours = ("--set", "model.mean=[0.5, 0.5, 0.5]", "--set", "model.std=[0.5, 0.5, 0.5]")
    code, out, _ = run_command("validate", EXAMPLE, "--data", tmp_path, *arguments, *colours)
    assert code == 0
    assert "mean 0.5 0.5 0.5 (study), std 0.5 0.5 0.5 (study)" in out


def test_validate_as_json_holds_the_resolved_study_with_its_overrides(run_command):
    out = run_command("validate", EXAMPLE, "--json", "--set", "pretraining.rounds=0")[1]
    summary = json.loads(out)
    changed = load_study(EXAMPLE, ["pretraining.rounds=0"])
    assert validated(Study, summary["resolved"], "resolved") == changed
    assert summary["sha256"] == changed.sha256
    assert summary["stage_1"] == "off"
    # Centre, zero-shot, prototypes, the rounds each with its centre, intercepts, personal models,
    # evaluation, end.
    assert summary["steps"] == 6 + 2 * changed.alignment.rounds + changed.calibration.rounds


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
    assert summary["preprocess"][1] == "mean 0.5 0.5 0.5 (built in)"


@pytest.mark.parametrize("flags", [(), ("--hubs",)])
def test_validate_asks_a_hub_only_where_it_is_told_to(run_command, tmp_path, monkeypatch, flags):
    asked = []

    def rehearse(study, data, hubs):
        asked.append(hubs)
        return {}

    monkeypatch.setattr("hica_server.summary.rehearse", rehearse)
    assert run_command("validate", EXAMPLE, "--data", tmp_path, *flags)[0] == 0
    assert asked == [bool(flags)]


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


@pytest.mark.parametrize("verb", [["report"], ["export", "--to", "model.safetensors"]])
@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"study": 7}']
)
def test_a_result_of_another_shape_is_damaged(run_command, finished, verb, text):
    (finished / "result.json").write_text(text)
    code, _, err = run_command(*verb, finished)
    assert code == 2 and "result.json: cannot be read" in err and "delete it and run" in err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("final", {}),
        ("sites", []),
        ("rounds", [7]),
        ("gain", {"a": {"alone": 1}}),
        ("baselines", {"a": {}}),
    ],
)
def test_a_part_of_a_result_that_is_of_another_shape_is_named(run_command, finished, key, value):
    table = json.loads((finished / "result.json").read_text())
    write_json(finished / "result.json", table | {key: value})
    code, _, err = run_command("report", finished)
    assert code == 2 and f"result.json: cannot be read ({key}" in err


def test_export_writes_the_trained_arrays_and_what_they_belong_to(
    run_command, finished, study, tmp_path
):
    to = tmp_path / "out" / "breast.safetensors"
    code, _, _ = run_command("export", finished, "--to", to)
    assert code == 0
    arrays = load_file(to)
    named = {"tower.w", "centre", "scale", "bias", "anchor.classes", "anchor.findings"}
    assert arrays.keys() == named
    assert arrays["tower.w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    described = json.loads(to.with_suffix(".json").read_text())
    assert described["classes"] == study.class_names
    assert described["arrays"]["tower.w"] == [2, 3]
    assert described["preprocess"] == PREPROCESS
    assert described["final"]["auroc"]["value"] == 0.8125
    assert validated(Study, described["study"], "exported").sha256 == study.sha256


def test_the_exported_hash_is_the_files(run_command, finished, tmp_path):
    from hica.images.cache import file_sha256

    to = tmp_path / "m.safetensors"
    run_command("export", finished, "--to", to)
    assert json.loads(to.with_suffix(".json").read_text())["sha256"] == file_sha256(to)


@pytest.mark.parametrize("name", ["result.json", "study.json"])
def test_a_report_of_two_studies_is_refused(run_command, finished, name):
    change(finished / name, "sha" if name == "result.json" else "alignment")
    code, _, err = run_command("report", finished)
    assert code == 2
    assert "its files are of different studies: result.json of " in err
    assert "study.json of " in err and not (finished / "report.html").exists()


@pytest.mark.parametrize(("name", "key"), [("result.json", "sha"), ("model.json", "study")])
def test_an_export_of_two_studies_is_refused(run_command, finished, tmp_path, name, key):
    change(finished / name, key)
    code, _, err = run_command("export", finished, "--to", tmp_path / "m.safetensors")
    assert code == 2
    assert "its files are of different studies: result.json of " in err
    assert not (tmp_path / "m.safetensors").exists()


def test_a_report_of_a_study_that_an_older_version_wrote(run_command, finished):
    """It knew a key less, so that what is read from it has another hash."""
    study, result = (json.loads((finished / f"{n}.json").read_text()) for n in ("study", "result"))
    del study["alignment"]["views"]
    result["study_sha256"] = study_hash(study)
    write_json(finished / "study.json", study)
    write_json(finished / "result.json", result)
    assert run_command("report", finished)[0] == 0


def change(path: Path, what: str) -> None:
    """Make a file of a run one of another study."""
    table = json.loads(path.read_text())
    if what == "sha":
        table["study_sha256"] = "0" * 64
    else:
        (table if what == "alignment" else table["study"])["alignment"]["shots"] = 5
    write_json(path, table)


def test_export_of_another_suffix_is_refused(run_command, finished, tmp_path):
    code, _, err = run_command("export", finished, "--to", tmp_path / "m.pt")
    assert code == 2
    assert "suffix .safetensors" in err


def test_export_of_a_damaged_model_is_a_checkpoint_error(run_command, finished, tmp_path):
    (finished / "model.safetensors").write_bytes(b"torn")
    code, _, err = run_command("export", finished, "--to", tmp_path / "m.safetensors")
    assert code == 4
    assert "model.safetensors: torn or damaged" in err


@pytest.mark.parametrize(
    ("text", "field"), [("{}", "study"), ('{"study": 1, "study_sha256": "a"}', "study"), ("[]", "")]
)
def test_export_beside_a_description_of_another_shape_names_it(
    run_command, finished, tmp_path, text, field
):
    (finished / "model.json").write_text(text)
    code, _, err = run_command("export", finished, "--to", tmp_path / "m.safetensors")
    assert code == 2 and f"model.json: cannot be read ({field}" in err
    assert not (tmp_path / "m.safetensors").exists()


VERBS = "init validate provision enroll revoke sites run status logs stop report export verify"


@pytest.mark.parametrize("verb", VERBS.split())
def test_every_verb_shows_an_example(run_command, verb):
    code, out, _ = run_command(verb, "--help")
    assert code == 0
    assert f"Example: hica-server {verb}" in " ".join(out.split())


# --- Certificates and sites ----------------------------------------------------------------------


@pytest.fixture
def public_key(tmp_path) -> Path:
    generate(tmp_path / "site")
    return public_path(tmp_path / "site")


def test_provision_makes_certificates_and_kits_and_says_where(run_command, coordinator):
    code, out, _ = run_command("provision", coordinator, "H1", "H2")
    assert code == 0
    for name in ("H1", "H2"):
        kit = coordinator / "kits" / f"{name}.zip"
        assert kit.exists()
        assert str(kit) in out
    assert "certificate  new" in out
    assert "certificate  kept" in run_command("provision", coordinator)[1]
    assert "certificate  new" in run_command("provision", coordinator, "--renew")[1]


def test_provision_days_are_those_of_a_new_certificate(run_command, coordinator):
    run_command("provision", coordinator, "--days", 7)
    left = expires(Folder(coordinator)) - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)
    assert run_command("provision", coordinator, "--days", 0)[0] == 2


def test_provision_without_a_study_says_so(run_command, tmp_path):
    code, _, err = run_command("provision", tmp_path)
    assert code == 2
    assert f"{tmp_path}: no study.toml in it; name the study folder" in err
    assert list(tmp_path.iterdir()) == []


def test_enroll_shows_the_fingerprint_to_compare(run_command, coordinator, public_key):
    code, out, _ = run_command("enroll", coordinator, public_key, "--name", "H1")
    assert code == 0
    assert f"H1: enrolled with the key {fingerprint(read_public(public_key))}\n" in out
    assert "by telephone" in out


def test_enroll_needs_a_name_and_a_public_key(run_command, coordinator, public_key):
    code, _, err = run_command("enroll", coordinator, public_key)
    assert code == 2
    assert "--name" in err
    code, _, err = run_command("enroll", coordinator, public_key.with_suffix(""), "--name", "H1")
    assert code == 2
    assert "private key" in err


def test_revoke_names_the_key(run_command, coordinator, public_key):
    run_command("enroll", coordinator, public_key, "--name", "H1")
    code, out, _ = run_command("revoke", coordinator, "H1")
    mark = fingerprint(read_public(public_key))
    assert (code, out) == (0, f"H1: revoked with the key {mark}\n")
    assert read_sites(Folder(coordinator))["H1"].revoked is not None
    code, _, err = run_command("revoke", coordinator, "H2")
    assert code == 2
    assert "'H2' is not enrolled" in err


def test_sites_are_listed_for_people_and_programs(run_command, coordinator, public_key):
    assert run_command("sites", coordinator)[1] == "nobody is enrolled\n"
    assert json.loads(run_command("sites", coordinator, "--json")[1]) == {}
    run_command("enroll", coordinator, public_key, "--name", "H1")
    mark = fingerprint(read_public(public_key))
    assert run_command("sites", coordinator)[1].startswith(f"H1  {mark}  enrolled 20")
    (name, site), *others = json.loads(run_command("sites", coordinator, "--json")[1]).items()
    assert (name, site["fingerprint"], site["revoked"], others) == ("H1", mark, None, [])


# --- A running server ----------------------------------------------------------------------------


def test_run_of_a_finished_study_prints_its_table_and_where_the_report_is(
    run_command, finished, monkeypatch
):
    monkeypatch.setattr("hica_server.operation.run", lambda folder, tell: None)
    (finished.parent / "study.toml").touch()
    code, out, _ = run_command("run", finished.parent)
    assert code == 0
    assert "HiCA federated" in out
    assert f"report: {finished / 'report.html'}" in out
    assert json.loads(run_command("run", finished.parent, "--json")[1])["seed"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_run_ended_by_a_signal_prints_no_result(
    run_command, coordinator, monkeypatch, number, code
):
    monkeypatch.setattr("hica_server.operation.run", lambda folder, tell: number)
    assert run_command("run", coordinator)[:2] == (code, "")


def test_run_that_cannot_go_on_ends_with_the_code_of_the_error(
    run_command, coordinator, monkeypatch
):
    def below_quorum(folder, tell):
        raise FederationError("1 of 2 sites")

    monkeypatch.setattr("hica_server.operation.run", below_quorum)
    code, _, err = run_command("run", coordinator)
    assert (code, err) == (6, "error: 1 of 2 sites\n")


def test_status_stop_and_logs_of_a_folder_where_nothing_runs(run_command, coordinator):
    assert run_command("status", coordinator)[:2] == (0, "not running\n")
    assert json.loads(run_command("status", coordinator, "--json")[1])["running"] is False
    assert run_command("stop", coordinator)[:2] == (0, "not running\n")
    assert run_command("logs", coordinator)[0] == 2


def test_neither_status_nor_the_supervising_process_loads_torch():
    """Half a gigabyte and three seconds, for a process that only looks after others."""
    code = "import sys, hica_server.operation, hica_server.status; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_export_leaves_existing_files_alone_unless_forced(run_command, finished, tmp_path):
    to = tmp_path / "m.safetensors"
    for existing in (to, tmp_path / "m.json"):
        existing.write_text("mine")
        code, _, err = run_command("export", finished, "--to", to)
        assert code == 2 and f"{existing}: exists and is left alone" in err and "--force" in err
        assert existing.read_text() == "mine"
        existing.unlink()
    to.write_text("mine")
    code, out, _ = run_command("export", finished, "--to", to, "--force", "--json")
    described = json.loads(out)
    assert code == 0 and described["model"] == str(to) and to.read_bytes() != b"mine"
    assert Path(described["description"]).exists()


def test_a_report_as_json(run_command, finished):
    out = run_command("report", finished, "--json")[1]
    assert Path(json.loads(out)["report"]).exists()


def test_where_no_server_runs_there_is_none_to_stop(run_command, coordinator):
    assert run_command("stop", coordinator)[1] == "not running\n"
    assert json.loads(run_command("stop", coordinator, "--json")[1]) == {"stopped": False}
