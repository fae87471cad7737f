from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from hica.errors import ConfigurationError
from hica.steps.state import Bank, State
from hica.wire.checkpoint import load_state, save_state
from hica_server.state import STATE_NAME, VERSION, RunState


def full_state():
    draws = np.random.default_rng(0)

    def rows(*shape):
        return draws.normal(size=shape).astype(np.float32)

    learnt = State(
        shared={"tower.w/x": rows(2, 3), "scale": np.float32(2)},
        bank=Bank(rows(2, 4), rows(5, 4)),
        texts=Bank(rows(2, 4), rows(5, 4)),
        centre=rows(2, 4),
        scale=rows(2, 4),
        bias=draws.normal(size=2),
        centroids=draws.normal(size=(3, 4)),
        means=rows(2, 4),
        sites=3,
        optimiser={"adam/m/tower.w/x": draws.normal(size=(2, 3)), "adam/steps": np.asarray(3)},
        evaluations={"final": {"overall": {"auroc": None, "accuracy": {"value": 1 / 3}}}},
    )
    return RunState(
        "a" * 64,
        learnt,
        done=7,
        sites={"north": {"labelled": 4, "classes": {"a": None}, "notes": []}},
        kept={"centre": "d" * 64},
        settled="e" * 64,
        told=["north"],
        rounds=[
            {"stage": "alignment", "round": 0, "loss": 0.1 + 0.2, "site_loss": {"north": 1e-9}}
        ],
        tower="c" * 64,
        text_bank_sha256="b" * 64,
        withdrawn={"a": 2},
        preprocess={"size": 64, "mean": [0.5, 0.5, 0.5], "pad_type": ""},
    )


def assert_same(one, other):
    assert type(one) is type(other) or isinstance(one, np.generic)
    if isinstance(one, np.ndarray | np.generic):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    elif is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, Bank):
        assert_same(one._asdict(), other._asdict())
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


def test_what_is_saved_comes_back_exactly(tmp_path):
    state = full_state()
    state.save(tmp_path)
    assert_same(state, RunState.load(tmp_path, state.study_sha256))


def test_the_state_that_is_compared_leaves_nothing_at_its_default():
    full, fresh = full_state(), RunState("")
    for one, other in ((full, fresh), (full.learnt, fresh.learnt)):
        for field in fields(one):
            assert repr(getattr(one, field.name)) != repr(getattr(other, field.name)), field.name


def test_an_empty_directory_gives_a_fresh_state(tmp_path):
    state = RunState.load(tmp_path, "a" * 64)
    assert (state.done, state.learnt.shared, state.rounds) == (0, {}, [])
    state.save(tmp_path)  # before anything is known
    assert_same(RunState.load(tmp_path, "a" * 64), state)


def test_a_directory_with_a_run_of_another_study_is_refused(tmp_path):
    full_state().save(tmp_path)
    with pytest.raises(ConfigurationError) as error:
        RunState.load(tmp_path, "c" * 64)
    message = str(error.value)
    assert str(tmp_path) in message
    assert "another study (aaaaaaaaaaaa, asked for cccccccccccc)" in message
    assert "Use another folder" in message


@pytest.mark.parametrize("version", [None, VERSION - 1, VERSION + 1])
def test_a_run_that_another_version_has_begun_is_refused(tmp_path, version):
    """Its plan may have other steps, so that `done` would count other ones than ours."""
    full_state().save(tmp_path)
    arrays, meta = load_state(tmp_path, STATE_NAME)
    assert meta.pop("version") == VERSION
    save_state(
        tmp_path, STATE_NAME, arrays, meta if version is None else meta | {"version": version}
    )
    with pytest.raises(ConfigurationError) as error:
        RunState.load(tmp_path, "a" * 64)
    message = str(error.value)
    assert message.startswith(
        f"{tmp_path}: holds a run that was begun with another version of hica"
    )
    assert "End it with that version, or use another folder" in message


def test_a_damaged_state_falls_back_to_the_step_before(tmp_path):
    state = full_state()
    state.save(tmp_path)
    state.done = 8
    state.save(tmp_path)
    [file] = tmp_path.glob("state.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    assert RunState.load(tmp_path, state.study_sha256).done == 7
