import json

import numpy as np
import pytest

from hica.errors import CheckpointError
from hica.steps.model_file import load_model, model_path, save_model
from hica.steps.state import Bank, State

DRAWS = np.random.default_rng(0)
LEARNT = State(
    shared={"tower.w": DRAWS.normal(size=(2, 3)).astype(np.float32)},
    bank=Bank(*DRAWS.normal(size=(2, 2, 4)).astype(np.float32)),
    centre=np.ones((2, 4), np.float32),
    scale=np.full((2, 4), 2, np.float32),
    bias=np.array([0.5, -0.5]),
)


def test_what_was_saved_is_loaded(toy_study, tmp_path):
    sent = State.from_arrays(LEARNT.arrays())  # as a site has it
    assert save_model(tmp_path, toy_study(), sent, more=1) == model_path(tmp_path)
    loaded, expected = load_model(tmp_path).arrays(), LEARNT.arrays()
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded[name], array)
    sidecar = json.loads((tmp_path / "model.json").read_text())
    assert sidecar["study_sha256"] == toy_study().sha256 and sidecar["more"] == 1


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such state"):
        load_model(tmp_path)
