"""What a site keeps of a study that is over, and what `hica-client result` shows of it."""

import hashlib
import json

import numpy as np
import pytest

from hica.errors import CheckpointError, FederationError
from hica.steps.model_file import load_model
from hica.steps.result import RESULT
from hica.steps.state import Bank, State
from hica.wire.messages import Request
from hica_client.audit import Event, append
from hica_client.cli import main
from hica_client.result import keep_result, read_result, result_file
from hica_client.site import load_site

INTERVAL = {"value": 0.75, "low": 0.5, "high": 1.0, "standard_error": 0.1}
PREPROCESS = {"size": 64}
METRICS = {"n": 8, "accuracy": INTERVAL, "balanced_accuracy": INTERVAL, "auroc": None}
FOUND = {"federated": METRICS, "zero_shot": METRICS, "why_none": ""}
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
    assert "toy is over" in out and "trained together" in out and "75.0 [50.0, 100.0]" in out
    assert "zero-shot" in out and "model.safetensors" in out


def test_why_nothing_was_measured_is_shown(told_site, capsys):
    site = told_site({"federated": None, "zero_shot": None, "why_none": "holds out no images"})
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
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"result\.json: cannot be read"):
        read_result(site_file)


def test_the_model_is_whole_before_the_site_counts_as_told(enrolled_site, toy_study, monkeypatch):
    monkeypatch.setattr("hica_client.result.write_json", lambda *_: 1 / 0)
    request = Request(RESULT.kind, toy_study(), arrays=LEARNT.arrays())
    site = load_site(enrolled_site)
    with pytest.raises(ZeroDivisionError):
        keep_result(site, request, FOUND, PREPROCESS)
    path = result_file(site, request.study.sha256)
    assert path.with_name("model.safetensors").exists() and not path.exists()
