import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hica.errors import CheckpointError, FederationError
from hica.text import from_study
from hica.text.from_study import refined_text_tower
from hica.towers import load_text_tower
from hica_server import deployed
from hica_server.deployed import publish_apart
from hica_server.publication import make_bank, publish, text_key
from hica_server.state import RunState


@pytest.fixture
def published(tmp_path):
    """The state that `publish` leaves of a study, by name of the run directory."""

    def published(study, out="run"):
        publish(study, tmp_path / out, tmp_path, lambda *of: make_bank(*of, tmp_path))
        return RunState.load(tmp_path / out, study.sha256)

    return published


@pytest.fixture
def one_thread():
    """As that process has: sums depend on how many threads share them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_starts_from_weights_and_texts_before_its_first_step(toy_study, published):
    state = published(toy_study())
    assert state.done == 0
    learnt = state.learnt
    assert {name.split(".")[0] for name in learnt.shared} == {"tower", "bank"}
    assert learnt.bank.classes.shape == (2, 128) and len(learnt.bank.findings) == 4
    assert len(state.tower) == len(state.text_bank_sha256) == 64
    assert learnt.bias.tolist() == [0.0, 0.0]
    assert state.preprocess["mean"] == [0.5, 0.5, 0.5] and state.preprocess["resize"] == "squash"


def test_in_half_precision_weights_are_rounded_and_nothing_else(toy_study, published):
    single = published(toy_study()).learnt
    half = published(toy_study("federation.precision=half"), "half").learnt
    for name, value in half.shared.items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value, single.shared[name].astype(np.float16))
    np.testing.assert_array_equal(half.bank.classes, single.bank.classes)


def test_another_process_leaves_the_same_bits(toy_study, published, tmp_path, one_thread):
    study = toy_study("text.epochs=2")
    here = published(study)
    publish_apart(study, tmp_path / "apart", tmp_path)
    there = RunState.load(tmp_path / "apart", study.sha256)
    assert there.tower == here.tower and there.text_bank_sha256 == here.text_bank_sha256
    for name, value in here.learnt.shared.items():
        np.testing.assert_array_equal(value, there.learnt.shared[name])


def test_the_text_side_of_a_pair_comes_from_the_same_checkpoint(toy_study, tmp_path, monkeypatch):
    """Its images would else be held against texts that were drawn."""
    asked = []

    def load(text, **named):
        asked.append(named)
        return load_text_tower("tiny", vocabulary=named["vocabulary"])

    monkeypatch.setattr(from_study, "load_text_tower", load)
    pinned = ("model.checkpoint=w.pt", f"model.sha256={'0' * 64}")
    study = toy_study("model.image=ViT-B-16", "model.text=same", *pinned)
    refined_text_tower(study, tmp_path)
    assert (asked[0]["checkpoint"], asked[0]["sha256"]) == (tmp_path / "w.pt", "0" * 64)
    assert text_key(study, tmp_path) != text_key(
        toy_study("model.image=ViT-B-16", "model.text=same"), tmp_path
    )


def test_its_errors_come_back(toy_study, tmp_path):
    pinned = ("model.checkpoint=w.pt", f"model.sha256={'0' * 64}")
    study = toy_study("model.image=timm/mobilenetv2_100", *pinned)
    with pytest.raises(CheckpointError, match=r"w\.pt"):
        publish_apart(study, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_process_that_is_killed_is_told(toy_study, tmp_path, monkeypatch):
    monkeypatch.setattr(deployed, "die_with", os._exit)  # what it does first
    with pytest.raises(FederationError, match="loads the towers was killed"):
        publish_apart(toy_study(), tmp_path / "run", tmp_path)


def test_a_deployed_run_itself_has_no_torch_in_memory():
    modules = (
        "hica_server.deployed, hica_server.app, hica_server.tracker, hica_server.report.run_report"
    )
    check = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
