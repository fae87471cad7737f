"""Which weights a request can carry, held against what rounds of training give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hica.errors import MessageError
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE, spread
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.steps.result import RESULT
from hica.steps.sent import check_sent, rounds_of
from hica.steps.step import Update
from hica_server.aggregation import make_aggregator

START = {
    "tower.up": np.zeros((2, 3), np.float32),
    "tower.down": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2),
    "bank.classes": np.zeros((2, 3), np.float32),
}
BANK = np.eye(2, 3, dtype=np.float32)


def turn(study, step, number=0):
    return [each for each in plan(study) if each.step is step][number]


def rounds_before(turn, study):
    turns = plan(study)
    return rounds_of(turns[: turns.index(turn)], study)


def sent(**changes):
    """The arrays of a request with these weights."""
    weights = {
        **START,
        "bank.classes": BANK,
        **{k.replace("_", "."): v for k, v in changes.items()},
    }
    return carried(weights)


START_SENT = {**START, "bank.classes": BANK}


def carried(weights, **others):
    """Weights in a request, beside estimates as they are before any."""
    still = {
        "centre": np.zeros((2, 3), np.float32),
        "scale": np.ones((2, 3), np.float32),
        "bias": np.zeros(2),
    }
    return {**{f"shared.{name}": value for name, value in weights.items()}, **still, **others}


def test_the_start_is_sent_before_any_training(toy_study):
    check_sent(turn(toy_study(), PRETRAINING), toy_study(), START, sent())


@pytest.mark.parametrize("name", ["tower_up", "tower_down"])
def test_before_any_training_nothing_else_is(toy_study, name):
    other = START[name.replace("_", ".")] + np.float32(1e-3)
    with pytest.raises(MessageError, match=r"has moved by 0\.001, training can move it by"):
        check_sent(turn(toy_study(), PRETRAINING), toy_study(), START, sent(**{name: other}))


def test_each_round_of_the_plan_adds_its_reach(toy_study):
    study = toy_study("pretraining.rounds=2", "alignment.rounds=3")
    assert len(rounds_before(turn(study, PRETRAINING, 1), study)) == 1
    assert len(rounds_before(turn(study, ALIGNMENT, 2), study)) == 4
    last = turn(study, EVALUATION, 1)
    rounds = rounds_before(last, study)
    assert len(rounds) == 5
    whole = np.float32(sum(each.tower for each in rounds))
    check_sent(last, study, START, sent(tower_up=START["tower.up"] + whole))
    with pytest.raises(MessageError, match="training can move it"):
        check_sent(last, study, START, sent(tower_up=START["tower.up"] + 2 * whole))
    with pytest.raises(MessageError, match="training can move it"):
        first = turn(study, ALIGNMENT)
        check_sent(first, study, START, sent(tower_up=START["tower.up"] + whole))


def test_a_bank_begins_with_unit_rows_wherever_they_point(toy_study):
    study = toy_study()
    check_sent(turn(study, ALIGNMENT), study, START, sent(bank_classes=-BANK))
    for rows in (0 * BANK, 2 * BANK):
        with pytest.raises(MessageError, match=r"weight 'bank.classes' has a row of norm [02], "):
            check_sent(turn(study, PRETRAINING), study, START, sent(bank_classes=rows))
    with pytest.raises(MessageError, match="weight 'bank"):
        check_sent(turn(study, ALIGNMENT), study, START, sent(bank_classes=100 * BANK))


def test_names_and_shapes_are_the_models(toy_study):
    study = toy_study()
    with pytest.raises(MessageError, match=r"do not fit the study's model: \['tower.door'\] diff"):
        check_sent(turn(study, ALIGNMENT), study, START, sent(tower_door=BANK))
    with pytest.raises(MessageError, match=r"'tower.up' has shape \(3, 2\), the .* \(2, 3\)"):
        check_sent(turn(study, ALIGNMENT), study, START, sent(tower_up=START["tower.up"].T))


def test_estimates_are_as_they_were_until_they_are_made(toy_study):
    study = toy_study("alignment.scaling=global")
    centre, scale = np.ones((2, 3), np.float32), np.full((2, 3), 7.0, np.float32)
    first, trains, last = turn(study, CENTRE), turn(study, ALIGNMENT), turn(study, EVALUATION, 1)
    for name, value in {"centre": centre, "scale": scale, "bias": np.ones(2)}.items():
        with pytest.raises(MessageError, match=f"array '{name}' is not as it is in this study bef"):
            check_sent(first, study, START, carried(START_SENT, **{name: value}))
    check_sent(trains, study, START, carried(START_SENT, centre=centre, scale=scale))
    with pytest.raises(MessageError, match="array 'bias' is not as it is"):
        check_sent(trains, study, START, carried(START_SENT, bias=np.ones(2)))
    check_sent(last, study, START, carried(START_SENT, bias=np.ones(2)))


def test_intercepts_are_no_larger_than_newton_steps_make_them(toy_study):
    study = toy_study("calibration.rounds=2", "calibration.ridge=0.1")
    for each, most in ((turn(study, CALIBRATION, 1), 7.07), (turn(study, RESULT), 14.14)):
        check_sent(each, study, START, carried(START_SENT, bias=np.array([most, -most])))
        for wrong in (1.01 * most, 1e6):
            with pytest.raises(MessageError, match=r"an intercept of .* calibration\.ridge = 0\.1"):
                check_sent(each, study, START, carried(START_SENT, bias=np.array([0.0, -wrong])))


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("alignment.scaling=none", "scale"),
        ("alignment.centring=none", "centre"),
        ("calibration.rounds=0", "bias"),
    ],
)
def test_what_a_study_does_not_use_stays_as_it_is(toy_study, override, name):
    study = toy_study(override)
    value = {"scale": np.full((2, 3), 2.0), "centre": np.ones((2, 3)), "bias": np.ones(2)}[name]
    with pytest.raises(MessageError, match=f"array '{name}' is not as it is in this study"):
        last = turn(study, EVALUATION, 1)
        check_sent(last, study, START, carried(START_SENT, **{name: value.astype(np.float32)}))


def test_a_private_classifier_has_intercepts_after_its_one_release(toy_study):
    private = ["mechanism=prototypes", "epsilon=3.0", "delta=1e-3"]
    nothing_else = ["calibration.rounds=0", "pretraining.rounds=0"]
    study = toy_study(*(f"privacy.{each}" for each in private), *nothing_else)
    check_sent(turn(study, EVALUATION, 1), study, START, carried(START_SENT, bias=np.ones(2)))


@given(seed=st.integers(0, 10_000), still=st.integers(0, 3))
def test_no_spread_is_finer_than_what_is_let_through(toy_study_once, seed, still):
    """A feature that is the same in all images has the smallest scale there is."""
    study = toy_study_once("alignment.scaling=global")
    rows = np.random.default_rng(seed).normal(size=(5, 3)) ** 5 * [10.0 ** (seed % 5), 1.0, 1e-3]
    rows[:, :still] = 0.5
    sums, squares = rows.sum(axis=0), np.square(rows).sum(axis=0)
    number = np.array([5.0, 5.0])
    scale = spread(np.stack([sums, sums]) / 5, np.stack([squares, squares]), number)
    arrays = carried(START_SENT, scale=scale.astype(np.float32))
    check_sent(turn(study, ALIGNMENT), study, START, arrays)


def test_a_window_on_one_feature_is_refused(toy_study):
    study = toy_study("alignment.scaling=global")
    scale = np.ones((2, 3), np.float32)
    scale[0, 1] = 0.01
    with pytest.raises(MessageError, match=r"'scale' is finer in one feature, 0\.01, .* 1/21 of"):
        check_sent(turn(study, ALIGNMENT), study, START, carried(START_SENT, scale=scale))


RULES = ["mean", "adam", "yogi", "trimmed-mean", "median", "krum"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lora", [False, True])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), wild=st.booleans())
def test_what_honest_sites_and_a_rule_give_is_let_through(toy_study_once, rule, lora, seed, wild):
    """Each site moves every number as far as it can, at random or all one way."""
    study = toy_study_once(
        f"federation.aggregation={rule}", "federation.trim=0.3", "alignment.rounds=4"
    )
    rng = np.random.default_rng(seed)
    start = {"tower.w": rng.normal(size=(4, 5)).astype(np.float32)}
    if lora:
        start["tower.q.lora_a.weight"] = rng.uniform(-0.5, 0.5, (2, 16)).astype(np.float32)
        start["tower.q.lora_b.weight"] = np.zeros((6, 2), np.float32)
    aggregator, shared = make_aggregator(study.federation), start
    for each in plan(study):
        check_sent(each, study, start, carried(shared))
        if each.step not in (PRETRAINING, ALIGNMENT):
            continue
        far = each.step.reach(study, each.round).tower
        updates = []
        for site in "abcd":
            moves = {
                name: far * (np.sign(rng.normal()) if wild else rng.uniform(-1, 1, value.shape))
                for name, value in shared.items()
            }
            arrays = {n: (v + moves[n]).astype(np.float32) for n, v in shared.items()}
            updates.append(Update(site, arrays, int(rng.integers(1, 9))))
        shared = aggregator.aggregate(each.round, shared, updates)


def test_factors_of_lora_are_held_to_their_norms(toy_study):
    study = toy_study()
    start = {
        "tower.q.lora_a.weight": np.full((2, 16), 0.1, np.float32),
        "tower.q.lora_b.weight": np.zeros((6, 2), np.float32),
    }
    for name in start:
        wrong = {**start, name: np.ones_like(start[name])}
        with pytest.raises(MessageError, match=f"weight '{name}' has norm .*, training can make"):
            check_sent(turn(study, ALIGNMENT), study, start, carried(wrong))


@pytest.fixture(scope="module")
def toy_study_once():
    from tests.conftest import TOY_STUDY

    from hica.study import Study, apply_overrides, validated

    return lambda *overrides: validated(Study, apply_overrides(TOY_STUDY, list(overrides)), "toy")
