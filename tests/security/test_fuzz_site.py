"""A hostile site answers what it likes, in any step: 2,000 replies and more."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from hica.steps.alignment import ALIGNMENT
from hica.steps.arrays import STATE_ARRAYS
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES

from .hostile_site import PRIVATE, honest, is_finite, resumed, run_of

HOSTILE = [CENTRE, PROTOTYPES, LLOYD, PRETRAINING, ALIGNMENT, CALIBRATION, EVALUATION]
NUMBERS = st.one_of(
    st.floats(width=32),
    st.sampled_from([1e300, -1e300, 1e30, 1e5, 2000.0, 0.0, -1.0, math.nan, math.inf]),
)
WORDS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
TABLES = st.dictionaries(st.text(max_size=6), WORDS, max_size=3)


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.mark.matrix
@seed(14)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_14_whatever_one_site_answers_the_state_can_be_sent_and_the_others_go_on(tmp, data):
    """Any numbers, counts and details, in any step, with and without privacy: at least eight
    replies in each of 250 runs."""
    private = data.draw(st.booleans(), "private")
    overrides = ["pretraining.clusters=2", "federation.retries=0", *(PRIVATE if private else [])]
    steps = [step for step in HOSTILE if not (private and step is CALIBRATION)]

    pushed = [0.0]

    def lie(reply):
        told = dict(reply.arrays)
        for name, array in told.items():
            if data.draw(st.booleans(), name):
                number = data.draw(NUMBERS, f"value of {name}")
                with np.errstate(all="ignore"):
                    told[name] = np.full_like(array, number)
                    pushed.append(float(np.abs(told[name] - array).max()))
        examples = data.draw(st.sampled_from([reply.examples, 0, 1, 10**6, 10**9, 10**12, -1]))
        more = data.draw(TABLES, "details")
        table = {**reply.details, **more} if data.draw(st.booleans(), "merged") else more
        return replace(reply, arrays=told, examples=examples, details=table)

    sites = honest("abc")
    run = run_of(*sites, overrides=overrides)
    sites[1].changes = {step.kind: lie for step in steps}
    for step in steps:
        for turn in (turn for turn in plan(run.study) if turn.step.name == step.name):
            before, moved = run.learnt.shared, len(pushed)
            run.coordinator.take(turn)
            if step in (PRETRAINING, ALIGNMENT):  # of three sites that announced as much
                share = max([0.0, *filter(math.isfinite, pushed[moved:])]) / 3
                for name, value in run.learnt.shared.items():
                    honest_step = 0 if step is PRETRAINING and "bank." in name else 1
                    assert np.abs(value - before[name] - honest_step).max() <= share * 1.01 + 0.01
        assert is_finite(run.state)
        for array in STATE_ARRAYS:
            array.check(run.learnt.arrays()[array.name])
        for evaluation in run.learnt.evaluations.values():
            assert evaluation["overall"]["n"] <= 18
        assert {"a", "c"} <= set(run.last["participants"])
        named = "b" in run.last["refused"]
        assert named != ("b" in run.last["participants"])
    again = run_of(*honest("abc"), overrides=overrides, state=resumed(run.state, tmp))
    assert again.take(ALIGNMENT).last["participants"] == ["a", "b", "c"]
