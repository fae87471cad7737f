"""How far training can move a weight, against AdamW itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hica.errors import MessageError
from hica.method.local_training import adamw
from hica.steps.reach import BETAS, SERVER_STEP, Rates, Reach, adamw_steps
from hica.study.sections import FederationSection


def trained(gradients, rate=0.1, decay=0.0, name="tower.a", start=0.0):
    """Where the product's optimiser brings a weight whose gradients are these."""
    weight = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimiser = adamw({name: weight}, rate, rate, decay)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
    return float(weight.detach())


def test_the_betas_are_those_of_the_optimiser():
    assert (
        adamw({"a": torch.nn.Parameter(torch.zeros(1))}, 1.0, 1.0, 0.0).defaults["betas"] == BETAS
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_no_gradients_move_a_weight_further(gradients):
    assert abs(trained(gradients)) <= 0.1 * adamw_steps(len(gradients)) * (1 + 1e-9)


@pytest.mark.parametrize("steps", [1, 3, 10, 40])
def test_the_worst_gradients_come_near(steps):
    """Those of the bound's last step grow as (β₂ / β₁)ᵏ; alike ones go one rate a step."""
    assert trained([1.0] * steps) == pytest.approx(-0.1 * steps, rel=1e-6)
    assert adamw_steps(steps) <= 1.5 * steps
    assert adamw_steps(1) == pytest.approx(1.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(-5, 5))
def test_decay_is_within_the_share(gradients, start):
    reach = Reach.of_steps(Rates(0.1, 0.0, 0.5), 1.0, len(gradients), "float32")
    end = trained(gradients, decay=0.5, start=start)
    reach.check("tower.a", np.array([start]), np.array([end]))


def test_many_steps_below_what_float32_can_tell_add_up():
    """Each is rounded up: forty of half a unit in the last place are forty whole ones."""
    rate, start = 0.3 * 2.0**-23, np.float32(1.5)
    weight = start
    for _ in range(40):
        weight = np.float32(weight + np.float32(rate * 2))
    reach = Reach.of_steps(Rates(rate * 2, 0.0, 0.0), 1.0, 40, "float32")
    reach.check("tower.a", np.array([start]), np.array([weight]))
    assert weight - start > 40 * 2 * rate  # which the rate alone would not allow


def test_a_bank_has_its_own_rate_and_no_decay():
    reach = Reach.of_steps(Rates(0.1, 0.3, 0.5), 0.5, 1, "float32")
    assert (reach.of("tower.a"), reach.of("bank.classes")) == pytest.approx((0.05, 0.15))


def test_rounds_add_up_and_the_servers_step_is_its_own():
    reach = Reach(1.0, 2.0, 0.1)
    assert reach.plus(reach) == (2.0, 4.0, 0.2)
    assert reach.by_rule(FederationSection(aggregation="median")) == reach
    stepped = reach.by_rule(FederationSection(aggregation="yogi", server_learning_rate=0.5))
    assert stepped == (0.5 * SERVER_STEP, 0.5 * SERVER_STEP, 0.1)


def test_what_has_moved_further_is_named():
    reach, before = Reach(tower=0.5), np.array([[1.0, 2.0]], np.float32)
    reach.check("tower.a", before, before + np.float32(0.5))
    with pytest.raises(MessageError) as error:
        reach.check("tower.a", before, before + np.array([[0.0, -0.75]], np.float32))
    assert "weight 'tower.a' has moved by 0.75, training can move it by 0.5 at most" in str(
        error.value
    )
