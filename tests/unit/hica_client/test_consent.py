import hashlib
import io
import json
import shutil
from pathlib import Path

import pytest
import tomli_w
from rich.console import Console

from hica.deployment import keys
from hica.deployment.kit import roster_json
from hica.steps.plan import STEPS, kinds_asked
from hica.wire.messages import Kind
from hica_client.approval import approved, decisions
from hica_client.cli import main
from hica_client.consent import (
    BESIDE_STEPS,
    OF_A_HUB,
    privacy_words,
    region_words,
    show,
    tower_words,
)
from hica_client.site import load_site

LEAKAGE = Path(__file__).parents[3] / "docs" / "leakage.md"


@pytest.fixture
def study(toy_study):
    return toy_study()


@pytest.fixture
def run(capsys, monkeypatch, enrolled_site):
    """Run `hica-client approve` on the site, typing `answer`."""

    def run(*arguments, answer=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as end:
            main(["approve", str(enrolled_site), *map(str, arguments)])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def test_everything_that_is_decided_on_is_shown(run, study):
    code, out, _ = run(study.sha256[:12], "--yes")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert study.sha256 in out
    for each in study.classes:
        for text in (each.name, *each.prompts, *each.findings):
            assert text in words
    for kind in kinds_asked(study):
        assert kind in out
    assert "regions" in words and region_words(study) in words
    assert "preprocessing as built in" in words
    assert "shared.*" in out and "sums, counts" in words
    assert "The study has no privacy mechanism" in words
    assert "leave exactly as they are" in words
    assert "Test results of fewer than 3 patients are hidden" in words


PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.5",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
]
SHARED_NOISE = ["privacy.secure_aggregation=true", "privacy.noise=distributed"]


def test_the_budget_of_a_private_study_is_told_and_what_it_does_not_protect(toy_study):
    words = privacy_words(toy_study(*PRIVATE))
    assert "ε = 3.5 at δ = 1e-05 for the whole study" in words
    assert "any one patient" in words and "Not protected are the numbers of images" in words
    assert "Secure aggregation" not in words and "no privacy mechanism" not in words
    assert "craft" not in words
    assert "any one image" in privacy_words(toy_study(*PRIVATE, "privacy.unit=image"))


@pytest.mark.parametrize("changes", [[], ["privacy.secure_aggregation=true"]])
def test_without_noise_it_is_told_what_crafted_requests_find(toy_study, changes):
    words = privacy_words(toy_study(*changes))
    assert "near the embeddings of 4 of 30 images" in words and "found 1 at most" in words
    measured = LEAKAGE.read_text(encoding="utf-8")
    row = "| {} | what is allowed, every round | 16 | 16 | 30 | {} at most] | {} |"
    assert row.format("no privacy", "0.1 [1", "3.9") in measured
    assert row.format("secure aggregation only", "0.0 [0", "0.0") in measured


def test_noise_that_is_enough_in_the_sum_only_is_told(toy_study):
    words = privacy_words(toy_study(*PRIVATE, *SHARED_NOISE))
    assert "that of your site alone is too little" in words
    assert "at least 3 sites" in words
    assert "too little" not in privacy_words(toy_study(*PRIVATE, SHARED_NOISE[0]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([], "masks"),
        (
            ["regions.method=unet", "regions.checkpoint=lesions.safetensors"],
            "unet, weights lesions.safetensors",
        ),
        (
            ["regions.method=hf-sam", "regions.checkpoint=wanglab/medsam-vit-base"],
            f"hf-sam, weights wanglab/medsam-vit-base: a folder of this name, else {OF_A_HUB}",
        ),
    ],
)
def test_weights_that_would_be_fetched_are_told(toy_study, changes, words):
    assert region_words(toy_study(*changes)) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([], "tiny, weights as built in"),
        (["model.checkpoint=w.pt", f"model.sha256={'0' * 64}"], "tiny, weights w.pt"),
        (
            ["model.image=ViT-B-32", "model.pretrained=openai"],
            f"ViT-B-32, weights openai: {OF_A_HUB}",
        ),
        (["model.image=hf-hub:a/b"], f"hf-hub:a/b, weights of that name: {OF_A_HUB}"),
        (["model.image=hf:clip"], "hf:clip, weights of that folder"),
        (["model.image=local-dir:clip"], "local-dir:clip, weights of that folder"),
        (
            [f"model.image=hf:a/b@{'0' * 40}"],
            f"hf:a/b@{'0' * 40}, weights of that name: {OF_A_HUB}",
        ),
    ],
)
def test_weights_of_the_tower_that_would_be_fetched_are_told(toy_study, changes, words):
    assert tower_words(toy_study(*changes)) == words


def test_every_kind_is_explained():
    assert BESIDE_STEPS.keys() == set(Kind)
    asked = [step for step in STEPS if step.kind]
    assert all(step.leaves for step in asked)
    # One row of the table is for all steps of a kind.
    assert len({(step.kind, step.leaves) for step in asked}) == len({step.kind for step in asked})


def test_arrays_are_listed_as_far_as_the_study_asks_for_them(toy_study):
    for study, there in (
        (toy_study(), False),
        (toy_study("alignment.scaling=global"), True),
    ):
        shown = io.StringIO()
        show(study, Console(file=shown, width=300))
        assert ("squares" in shown.getvalue().replace("squares too", "")) is there


def test_a_yes_is_recorded_with_user_and_time(run, study, enrolled_site, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "dr-grey")
    code, out, _ = run(study.sha256[:12], answer="y\n")
    assert code == 0
    assert f"approved {study.sha256}" in out
    decision = decisions(load_site(enrolled_site))[study.sha256]
    assert (decision.user, decision.approved, decision.name) == ("dr-grey", True, "toy")
    assert decision.time


def test_a_user_without_a_name_has_a_number(run, study, enrolled_site, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    run(study.sha256, "--yes")
    assert decisions(load_site(enrolled_site))[study.sha256].user.startswith("uid ")


def test_a_no_approves_nothing(run, study, enrolled_site):
    code, _, err = run(study.sha256, answer="n\n")
    assert (code, "error: not approved; nothing is trained here" in err) == (2, True)
    assert not approved(load_site(enrolled_site), study.sha256)


@pytest.mark.parametrize("prefix", ["", "0123456789a", "xyzxyzxyzxyz", "a" * 65])
def test_too_few_digits_or_none(run, prefix):
    code, out, err = run(prefix, "--yes")
    assert (code, out) == (2, "")
    assert "give at least the first 12 of the hash's 64 hexadecimal digits" in err


def test_where_nobody_answers_it_says_how_to_decide(run, study, enrolled_site):
    code, _, err = run(study.sha256)
    assert code == 2 and "standard input: has ended" in err and "--yes" in err
    assert not approved(load_site(enrolled_site), study.sha256)


def test_the_kit_of_another_site_is_not_approved(run, study, enrolled_site, unpack_kit):
    unpack_kit(enrolled_site, study, site="south")
    beside = enrolled_site.parent / "kit" / "study.toml"
    for more in ([], ["--study", beside]):
        code, _, err = run(study.sha256, "--yes", *more)
        assert code == 2 and "is the kit of 'south', but site.name is 'north'" in err
    assert decisions(load_site(enrolled_site)) == {}


def test_capitals_of_a_hash_mean_the_same(run, study, enrolled_site):
    assert run(study.sha256[:12].upper(), "--yes")[0] == 0
    assert approved(load_site(enrolled_site), study.sha256)
    assert run(study.sha256[:12].upper(), "--revoke")[0] == 0
    assert not approved(load_site(enrolled_site), study.sha256)


def test_another_hash_than_the_kits(run, study, enrolled_site):
    code, out, err = run("0" * 12, "--yes")
    assert (code, out) == (2, "")
    assert f"kit/study.json, which is {study.sha256}: the study was changed" in err
    assert decisions(load_site(enrolled_site)) == {}


def test_a_study_of_which_there_is_no_kit(run, toy_study, tmp_path, enrolled_site):
    other = toy_study("study.seed=7")
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(other.model_dump(mode="json", exclude_none=True)))
    assert run(other.sha256[:12], "--yes")[0] == 2
    shutil.rmtree(enrolled_site.parent / "kit")
    assert run(other.sha256[:12], "--yes", "--study", path)[0] == 0
    assert approved(load_site(enrolled_site), other.sha256)


def test_a_study_beside_the_kit_is_the_kits_or_is_refused(run, study, toy_study, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(study.model_dump(mode="json", exclude_none=True)))
    assert run(study.sha256[:12], "--yes", "--study", path)[0] == 0
    other = toy_study("study.seed=7", "alignment.shots=5")
    path.write_text(tomli_w.dumps(other.model_dump(mode="json", exclude_none=True)))
    code, out, err = run(other.sha256[:12], "--yes", "--study", path)
    assert (code, out) == (2, "")
    assert f"{path}: is another study than that of the start kit" in err
    assert "study.seed = 7, in " in err and "kit/study.json 0; alignment.shots = 5" in err


def test_a_study_that_the_policy_forbids(run, study, enrolled_site):
    enrolled_site.write_text(enrolled_site.read_text().replace("min_count = 3", "min_count = 4"))
    code, out, err = run(study.sha256, "--yes")
    assert (code, out) == (2, "")
    assert "policy.min_count is 4" in err
    assert not approved(load_site(enrolled_site), study.sha256)


def test_an_approval_is_taken_back(run, study, enrolled_site):
    run(study.sha256, "--yes")
    code, out, _ = run(study.sha256[:12], "--revoke")
    assert (code, out) == (0, f"approval taken back: {study.sha256}\n")
    assert not approved(load_site(enrolled_site), study.sha256)
    code, _, err = run(study.sha256[:12], "--revoke")
    assert code == 2
    assert "no approved study has this hash; approved: none" in err


def test_what_to_take_back_is_listed(run, study):
    run(study.sha256, "--yes")
    _, _, err = run("0" * 12, "--revoke")
    assert f"approved: {study.sha256[:12]} (toy)" in err
    assert "at least the first 12" in run("0", "--revoke")[2]


def test_texts_of_the_coordinator_do_not_steer_the_terminal(
    run, toy_study, tmp_path, enrolled_site
):
    shutil.rmtree(enrolled_site.parent / "kit")
    table = toy_study().model_dump(mode="json", exclude_none=True)
    table["classes"][0]["prompts"] = ["a mass\x1b[2J\x1b[1;1H[bold]nothing leaves[/]"]
    other = type(toy_study()).model_validate(table)
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(table))
    _, out, _ = run(other.sha256, "--yes", "--study", path)
    assert "\x1b" not in out
    assert "[bold]nothing leaves[/]" in " ".join(out.replace("│", " ").split())


# --- Secure aggregation --------------------------------------------------------------------------


@pytest.fixture
def secure(toy_study, unpack_kit, enrolled_site, tmp_path):
    """The kit of a study with secure aggregation; returns study, list of keys and its hash."""
    roster = {name: keys.generate(tmp_path / name) for name in ("north-key", "south-key")}
    text = roster_json(roster)
    digest = hashlib.sha256(text).hexdigest()
    (enrolled_site.parent / "kit" / "keys.json").write_bytes(text)
    study = toy_study("privacy.secure_aggregation=true")
    unpack_kit(enrolled_site, study, keys_sha256=digest)
    return study, roster, digest


def test_the_keys_that_it_rests_on_are_shown_and_recorded(run, secure, enrolled_site):
    study, roster, digest = secure
    code, out, _ = run(study.sha256[:12], "--yes")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    for name, key in roster.items():
        assert name in words and keys.fingerprint(key) in words
    assert f"list of keys {digest}" in words
    assert "can read their sum over at least 3 sites, and that of none by itself" in words
    assert "metrics of evaluate, which leave as they are" in words
    assert decisions(load_site(enrolled_site))[study.sha256].keys == digest


def test_without_the_list_of_keys_nothing_is_approved(run, secure, enrolled_site):
    study, _, _ = secure
    (enrolled_site.parent / "kit" / "keys.json").unlink()
    code, _, err = run(study.sha256[:12], "--yes")
    assert (code, approved(load_site(enrolled_site), study.sha256)) == (2, False)
    assert "keys.json" in err


def test_an_approval_that_holds_is_not_added_again(run, study, enrolled_site):
    run(study.sha256[:12], "--yes")
    site = load_site(enrolled_site)
    before, first = site.approvals.read_bytes(), decisions(site)[study.sha256]
    code, out, _ = run(study.sha256[:12])
    assert code == 0 and site.approvals.read_bytes() == before
    assert f"approved already, by {first.user} on {first.time}" in " ".join(out.split())


def test_another_policy_is_approved_anew(run, study, enrolled_site):
    run(study.sha256[:12], "--yes")
    with enrolled_site.open("a") as file:
        file.write("delta = 1e-6\n")
    assert "approved already" not in run(study.sha256[:12], "--yes")[1]
    assert len(load_site(enrolled_site).approvals.read_text().splitlines()) == 2


def test_a_decision_as_json(run, study):
    code, out, err = run(study.sha256[:12], "--yes", "--json")
    [decision] = json.loads(out)
    assert code == 0 and decision["study"] == study.sha256 and decision["approved"] is True
    assert "What will leave this site" in err
    [decision] = json.loads(run(study.sha256[:12], "--revoke", "--json")[1])
    assert decision["approved"] is False
