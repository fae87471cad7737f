from dataclasses import fields

import numpy as np
import pytest

from hica.errors import ConfigurationError
from hica_server.state import RunState


def full_state():
    draws = np.random.default_rng(0)
    return RunState(
        "a" * 64,
        done=7,
        shared={"tower.w/x": draws.normal(size=(2, 3)).astype(np.float32), "scale": np.float32(2)},
        anchor={"classes": draws.normal(size=(2, 4)).astype(np.float32)},
        centre=draws.normal(size=(2, 4)).astype(np.float32),
        centroids=draws.normal(size=(3, 4)),
        optimiser={"adam/m/tower.w/x": draws.normal(size=(2, 3)), "adam/steps": np.asarray(3)},
        sites={"north": {"labelled": 4, "classes": {"a": None}, "notes": []}},
        rounds=[
            {"stage": "alignment", "round": 0, "loss": 0.1 + 0.2, "site_loss": {"north": 1e-9}}
        ],
        evaluations={"final": {"overall": {"auroc": None, "accuracy": {"value": 1 / 3}}}},
        text_bank_sha256="b" * 64,
    )


def assert_same(one, other):
    if isinstance(one, np.ndarray | np.generic):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


def test_what_is_saved_comes_back_exactly(tmp_path):
    state = full_state()
    state.save(tmp_path)
    loaded = RunState.load(tmp_path, state.study_sha256)
    for field in fields(RunState):
        assert_same(getattr(state, field.name), getattr(loaded, field.name))


def test_an_empty_directory_gives_a_fresh_state(tmp_path):
    state = RunState.load(tmp_path, "a" * 64)
    assert (state.done, state.shared, state.rounds) == (0, {}, [])
    state.save(tmp_path)  # before anything is known
    assert_same(vars(RunState.load(tmp_path, "a" * 64)), vars(state))


def test_a_directory_with_a_run_of_another_study_is_refused(tmp_path):
    full_state().save(tmp_path)
    with pytest.raises(ConfigurationError) as error:
        RunState.load(tmp_path, "c" * 64)
    message = str(error.value)
    assert str(tmp_path) in message
    assert "another study (aaaaaaaaaaaa, asked for cccccccccccc)" in message
    assert "Use another folder" in message


def test_a_damaged_state_falls_back_to_the_step_before(tmp_path):
    state = full_state()
    state.save(tmp_path)
    state.done = 8
    state.save(tmp_path)
    [file] = tmp_path.glob("state.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    assert RunState.load(tmp_path, state.study_sha256).done == 7
