import json

import pytest
import tomli_w

from hica.study import load_study, read_toml


@pytest.fixture
def drafted(run_command, study_file, tmp_path):
    """A draft of random words, not yet reviewed."""
    out = tmp_path / "findings.toml"
    assert run_command("findings", "draft", study_file, "--source", "random", "--out", out)[0] == 0
    return out


@pytest.fixture
def reviewed(drafted):
    text = drafted.read_text()
    drafted.write_text(text.replace('reviewed_by = ""', 'reviewed_by = "A. Nowak"'))
    return drafted


@pytest.mark.parametrize("verb", ["draft", "apply"])
def test_every_verb_shows_an_example(run_command, verb):
    code, out, _ = run_command("findings", verb, "--help")
    assert code == 0
    assert f"Example: hica-server findings {verb}" in " ".join(out.split())


def test_the_verbs_are_listed(run_command):
    assert "findings" in run_command("--help")[1]
    out = run_command("findings", "--help")[1]
    assert "draft" in out
    assert "apply" in out


def test_a_draft_says_what_it_proposes_and_what_to_do_next(run_command, study_file, tmp_path):
    out = tmp_path / "f.toml"
    code, said, _ = run_command(
        "findings", "draft", study_file, "--source", "template", "--out", out
    )
    assert code == 0
    assert "benign: 4 proposed: shape of benign in breast ultrasound, " in said
    assert f"set reviewed_by, then: hica-server findings apply {study_file} {out}" in said
    assert read_toml(out)["reviewed_by"] == ""


def test_a_draft_as_json(run_command, study_file, tmp_path, save_model):
    folder = save_model("oval shape", "no mass")
    arguments = ("--source", "language-model", "--model", folder, "--seed", 3, "--json")
    out = tmp_path / "f.toml"
    code, said, err = run_command("findings", "draft", study_file, *arguments, "--out", out)
    assert code == 0
    told = json.loads(said)
    assert told["file"] == str(out)
    assert told["source"]["seed"] == 3
    assert told["source"]["model"] == "little-model"
    assert set(told["classes"]) == {"normal", "benign", "malignant"}
    assert "asking the language model: 3 items" in err


def test_lines_that_were_left_out_are_said(run_command, study_file, tmp_path, save_model):
    folder = save_model("oval shape", "- no \x1b mass")
    arguments = ("--source", "language-model", "--model", folder, "--out", tmp_path / "f.toml")
    said = run_command("findings", "draft", study_file, *arguments)[1]
    assert r"benign: left out '- no \x1b mass': holds a control" in said


def test_a_model_that_gives_nothing_writes_nothing(run_command, study_file, tmp_path, save_model):
    folder = save_model("no mass")
    arguments = ("--source", "language-model", "--model", folder, "--out", tmp_path / "f.toml")
    code, out, err = run_command("findings", "draft", study_file, *arguments)
    assert (code, out) == (2, "")
    assert "class 'normal'" in err
    assert not (tmp_path / "f.toml").exists()


def test_a_model_that_is_missing_ends_with_4(run_command, study_file, tmp_path):
    missing, out = tmp_path / "missing", tmp_path / "f.toml"
    arguments = ("--source", "language-model", "--model", missing, "--out", out)
    code, _, err = run_command("findings", "draft", study_file, *arguments)
    assert code == 4
    assert f"error: {missing}: no such folder" in err
    assert not out.exists()


@pytest.mark.parametrize(
    "wrong", [("--source", "oracle"), (), ("--source", "random", "--seed", -1)]
)
def test_misuse_ends_with_2(run_command, study_file, tmp_path, wrong):
    out = tmp_path / "f.toml"
    assert run_command("findings", "draft", study_file, *wrong, "--out", out)[0] == 2
    assert not out.exists()


def test_a_draft_is_not_written_over(run_command, study_file, drafted):
    text = drafted.read_text()
    arguments = ("--source", "template", "--out", drafted)
    code, _, err = run_command("findings", "draft", study_file, *arguments)
    assert code == 2
    assert f"{drafted}: exists and is left alone" in err
    arguments = ("--source", "language-model", "--model", "/no/such", "--out", drafted)
    assert run_command("findings", "draft", study_file, *arguments)[0] == 2  # no model is asked
    assert drafted.read_text() == text


def test_an_unread_draft_is_not_applied(run_command, study_file, drafted):
    before = study_file.read_text()
    code, out, err = run_command("findings", "apply", study_file, drafted)
    assert (code, out) == (2, "")
    assert f"{drafted}: reviewed_by is empty" in err
    assert study_file.read_text() == before


def test_apply_shows_the_new_hash_and_that_it_must_be_approved(
    run_command, study_file, study, reviewed
):
    code, out, _ = run_command("findings", "apply", study_file, reviewed)
    assert code == 0
    after = load_study(study_file)
    assert after.sha256 != study.sha256
    assert f"sha256  {after.sha256}\n" in out
    assert "hospitals must approve it anew" in out
    assert "findings reviewed by A. Nowak (before: " in out
    assert "passed over in manifests: layered fibroglandular tissue, " in out
    drafted = {item["name"]: item["findings"] for item in read_toml(reviewed)["classes"]}
    assert {item.name: item.findings for item in after.classes} == drafted
    assert run_command("validate", study_file)[0] == 0


def test_applied_again_it_is_the_same_study(run_command, study_file, reviewed, tmp_path):
    run_command("findings", "apply", study_file, reviewed)
    arguments = (study_file, reviewed, "--out", tmp_path / "same.toml")
    code, out, _ = run_command("findings", "apply", *arguments)
    assert code == 0
    assert "same study as before" in out
    assert "must approve" not in out


def test_lost_comments_are_said(run_command, study_file, study, reviewed):
    table = study.model_dump(mode="json", exclude_none=True)
    classes = [f'{{ name = "{item["name"]}", prompts = ["a"] }}' for item in table.pop("classes")]
    study_file.write_text(f"classes = [{', '.join(classes)}]\n" + tomli_w.dumps(table))
    assert "its comments are lost" in run_command("findings", "apply", study_file, reviewed)[1]
