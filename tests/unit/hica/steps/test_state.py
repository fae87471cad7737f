from collections.abc import Mapping

import numpy as np
import pytest

from hica.steps.state import Bank, State, weights_of


@pytest.fixture
def state():
    draws = np.random.default_rng(0)

    def draw(*shape, dtype="float32"):
        return draws.normal(size=shape).astype(dtype)

    return State(
        shared={"tower.weight": draw(2, 3, dtype="float16"), "bank.classes": draw(2, 5)},
        bank=Bank(draw(2, 5), draw(4, 5)),
        centre=draw(2, 5),
        scale=draw(2, 5),
        bias=draw(2, dtype="float64"),
        centroids=draw(3, 5, dtype="float64"),
    )


def test_what_a_request_carries_is_the_state_again(state):
    arrays = state.arrays()
    again = State.from_arrays(arrays)
    assert again.arrays().keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(again.arrays()[name], value)
        assert again.arrays()[name].dtype == value.dtype
    assert again.shared.keys() == state.shared.keys()
    for name in ("centre", "scale", "bias"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    for one, other in zip(again.bank, state.bank, strict=True):
        np.testing.assert_array_equal(one, other)


def test_neither_centroids_nor_what_the_rule_keeps_are_carried_by_every_request(state):
    again = State.from_arrays(state.arrays())
    assert again.centroids.size == 0 and again.optimiser == {} and again.evaluations == {}


def test_the_trained_bank_is_not_taken_for_the_one_it_is_pulled_to(state):
    again = State.from_arrays(state.arrays())
    np.testing.assert_array_equal(again.shared["bank.classes"], state.shared["bank.classes"])
    np.testing.assert_array_equal(again.bank.classes, state.bank.classes)
    assert not np.array_equal(again.bank.classes, again.shared["bank.classes"])


def test_the_width_is_that_of_a_feature(state):
    assert state.width == 5
    assert State().width == 0


def test_weights_have_their_own_names():
    arrays = {"shared.a.b": np.ones(1), "bias": np.zeros(2), "shared.c": np.full(3, 3.0)}
    weights = weights_of(arrays)
    assert list(weights) == ["a.b", "c"] and len(weights) == 2
    assert weights["c"].tolist() == [3.0] * 3
    assert "bias" not in weights
    with pytest.raises(KeyError):
        weights["bias"]


def test_weights_are_read_when_they_are_needed():
    class Waiting(Mapping):
        """Arrays on disk, one at a time in memory."""

        def __init__(self):
            self.read = []

        def __getitem__(self, name):
            self.read.append(name)
            return np.zeros(1)

        def __iter__(self):
            return iter(["shared.a", "shared.b", "bias"])

        def __len__(self):
            return 3

    waiting = Waiting()
    weights = weights_of(waiting)
    assert (list(weights), len(weights), waiting.read) == (["a", "b"], 2, [])
    weights["b"]
    assert waiting.read == ["shared.b"]
