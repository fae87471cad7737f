"""What a site keeps of a study that is over, and what `hica-client result` shows of it."""

import hashlib
import json

import numpy as np
import pytest

from hica.errors import CheckpointError, FederationError
from hica.steps.model_file import load_model
from hica.steps.plan import plan
from hica.steps.result import RESULT
from hica.steps.state import Bank, State
from hica.steps.training import Training
from hica.wire.messages import Request
from hica_client.audit import Event, append
from hica_client.cli import main
from hica_client.result import is_told, is_whole, keep_result, read_result, result_file
from hica_client.site import load_site

INTERVAL = {"value": 0.75, "low": 0.5, "high": 1.0, "standard_error": 0.1}
PREPROCESS = {"size": 64}
METRICS = {
    "n": 8,
    "counts": [4, 4],
    "accuracy": INTERVAL,
    "balanced_accuracy": INTERVAL,
    "auroc": None,
    "ece": 0.1,
    "confusion": None,
    "calibration": [{"count": 8, "confidence": 0.8, "accuracy": 0.75}],
}
COMPARED = {"accuracy": INTERVAL, "balanced_accuracy": INTERVAL, "auroc": None}
GAIN = {
    "alone": COMPARED,
    "shared": COMPARED,
    "personal": COMPARED,
    "difference": {
        "accuracy": {"value": 0.031, "low": -0.01, "high": 0.07},
        "balanced_accuracy": {"value": 0.0, "low": 0.0, "high": 0.0},
        "auroc": None,
    },
}
FOUND = {
    "federated": METRICS,
    "zero_shot": METRICS,
    "gain": GAIN,
    "own_share": 0.43,
    "why_none": "",
}
LEARNT = State(
    {"tower.w": np.ones((2, 2), np.float32)}, Bank(*np.ones((2, 2, 4), np.float32)), bias=np.ones(2)
)


@pytest.fixture
def told_site(enrolled_site, toy_study):
    """A site that has been told that the toy study is over, with what was found."""

    def tell(found=FOUND):
        request = Request(RESULT.kind, toy_study(), arrays=LEARNT.arrays())
        keep_result(load_site(enrolled_site), request, found, PREPROCESS)
        return enrolled_site

    return tell


def test_before_the_end_it_says_when_there_is_a_result(enrolled_site, toy_study):
    said = r"the study 'toy' has no result at this site yet.*hica-server run DIR --tell"
    with pytest.raises(FederationError, match=said):
        read_result(enrolled_site)


def test_model_hash_and_rounds_are_told(told_site, toy_study):
    site_file = told_site()
    site, sha = load_site(site_file), toy_study().sha256
    for kind, round_, decision, study in (
        ("train.align", 0, "sent", sha),
        ("train.align", 0, "sent", sha),  # asked for again
        ("train.align", 1, "refused", sha),
        ("train.align", 1, "sent", "0" * 64),
        ("train.moments", 0, "sent", sha),
    ):
        append(site.audit_log, Event("message", decision, "", kind, round_, study))
    found = read_result(site_file)
    model = result_file(site, sha).with_name("model.safetensors")
    assert found["federated"] == METRICS and found["site"] == "north"
    both = toy_study().pretraining.rounds + toy_study().alignment.rounds
    assert (found["rounds"], found["rounds_of"]) == (1, both)
    assert found["model"] == str(model)
    assert found["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert load_model(model.parent).bias.tolist() == [1.0, 1.0]


def test_the_command_shows_it(told_site, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main(["result", str(told_site())])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "toy is over" in out and "this site's own" in out and "75.0 [50.0, 100.0]" in out
    assert "this site alone" in out and "the shared model " in out
    assert "43 % of its predictions are this site's own models'" in out
    assert "joining gave: accuracy 75.0 → 75.0 (+3.1 [-1.0, +7.0] points), balanced" in out
    assert "zero-shot" in out and "model.safetensors" in out


def test_a_site_that_did_not_train_has_nothing_to_compare(told_site, capsys):
    with pytest.raises(SystemExit):
        main(["result", str(told_site(FOUND | {"gain": None}))])
    out = capsys.readouterr().out
    assert "joining gave" not in out and "this site alone" not in out


def test_why_nothing_was_measured_is_shown(told_site, capsys):
    nothing = {"federated": None, "zero_shot": None, "gain": None, "own_share": None}
    site = told_site({**nothing, "why_none": "holds out no images"})
    with pytest.raises(SystemExit):
        main(["result", str(site)])
    assert "not measured: holds out no images" in capsys.readouterr().out


def test_as_json_it_is_all_of_it(told_site, capsys):
    site = told_site()
    with pytest.raises(SystemExit):
        main(["result", str(site), "--json"])
    assert json.loads(capsys.readouterr().out) == read_result(site)


def test_what_was_damaged_is_named(told_site, toy_study):
    site_file = told_site()
    path = result_file(load_site(site_file), toy_study().sha256)
    path.with_name("model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is gone; restore"):
        read_result(site_file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"null", "should be an object"),
        (b"{}", "study: Field required"),
        (b"[" * 100_000 + b"]" * 100_000, "recursion limit"),
    ],
)
def test_a_result_that_is_none_is_damaged(told_site, toy_study, capsys, text, words):
    site_file = told_site()
    result_file(load_site(site_file), toy_study().sha256).write_bytes(text)
    with pytest.raises(SystemExit) as end:
        main(["result", str(site_file)])
    said = capsys.readouterr().err
    assert end.value.code == CheckpointError.exit_code
    assert "result.json: cannot be read" in said and words in said and "--tell 3600" in said


@pytest.mark.parametrize(
    "change",
    [{"federated": {"n": 8}}, {"study": 7}, {"zero_shot": [METRICS]}, {"why_none": None}],
)
def test_a_result_of_another_shape_is_damaged(told_site, toy_study, change):
    site_file = told_site()
    path = result_file(load_site(site_file), toy_study().sha256)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=r"result\.json: cannot be read"):
        read_result(site_file)


def test_a_model_or_a_result_of_something_else_is_damaged(told_site, toy_study):
    site_file = told_site()
    path = result_file(load_site(site_file), toy_study().sha256)
    path.with_name("model.safetensors").write_text("x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is not the file that"):
        read_result(site_file)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"study_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"result\.json: is of another study"):
        read_result(site_file)


@pytest.mark.parametrize("name", ["result.json", "model.safetensors", "model.json"])
def test_a_site_that_lost_a_part_of_it_is_not_told(told_site, toy_study, name):
    site, study = load_site(told_site()), toy_study()
    assert is_told(site, study.sha256) and is_whole(site, study)
    result_file(site, study.sha256).with_name(name).unlink()
    assert not is_told(site, study.sha256) and not is_whole(site, study)


def test_fewer_rounds_than_the_study_has_are_said_loudly(told_site, toy_study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    site_file, study = told_site(), toy_study()
    rounds = [turn for turn in plan(study) if isinstance(turn.step, Training)]
    for number, turn in enumerate(rounds):
        with pytest.raises(SystemExit):
            main(["result", str(site_file)])
        said = f"This site answered only {number} of {len(rounds)} rounds."
        assert said in capsys.readouterr().out
        event = Event("message", "sent", "", turn.step.kind, turn.round, study.sha256)
        append(load_site(site_file).audit_log, event)
    with pytest.raises(SystemExit):
        main(["result", str(site_file)])
    assert "answered only" not in capsys.readouterr().out


def test_the_model_is_whole_before_the_site_counts_as_told(enrolled_site, toy_study, monkeypatch):
    monkeypatch.setattr("hica_client.result.write_json", lambda *_: 1 / 0)
    request = Request(RESULT.kind, toy_study(), arrays=LEARNT.arrays())
    site = load_site(enrolled_site)
    with pytest.raises(ZeroDivisionError):
        keep_result(site, request, FOUND, PREPROCESS)
    path = result_file(site, request.study.sha256)
    assert path.with_name("model.safetensors").exists() and not path.exists()
