"""What no honest site can have answered. The attacks themselves: `tests/security`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hica.cohort.private_draw import draw_units
from hica.errors import MessageError
from hica.images.manifest import Record
from hica.privacy.budget import noise_deviation
from hica.steps.alignment import ALIGNMENT
from hica.steps.arrays import COUNT_SCALE
from hica.steps.centre import CENTRE
from hica.steps.evaluation import EVALUATION
from hica.steps.prototypes import PROTOTYPES
from hica.wire.messages import Reply
from hica_server.replies import check_amounts, check_state, most_drawn, most_images

from .conftest import start_of

SAID = {"labelled": 4, "unlabelled": 6, "test": 50}
PRIVATE = ["privacy.mechanism=dp-sgd", "privacy.epsilon=3.0", "privacy.delta=1e-3"]
PRIVATE += ["calibration.rounds=0"]


def reply(step, examples, **arrays):
    return Reply(step.kind, "a", 0, examples, arrays={n: np.array(v) for n, v in arrays.items()})


def test_an_answer_stands_for_what_was_announced_and_the_study_takes(make_study):
    study = make_study("alignment.shots=1")
    assert most_images(ALIGNMENT, study, SAID) == 2  # one of each class
    assert most_images(CENTRE, study, SAID) == 6
    assert most_images(EVALUATION, study, SAID) == 50  # of them the study has no number
    check_amounts(ALIGNMENT, study, reply(ALIGNMENT, 4), [SAID, SAID])
    with pytest.raises(MessageError, match="claims 5 examples, announced were 4 labelled images"):
        check_amounts(ALIGNMENT, study, reply(ALIGNMENT, 5), [SAID, SAID])


def test_the_bound_of_a_sum_is_met_exactly(make_study):
    study = make_study()
    sums, counts = np.array([[2.0, -2.0], [0.0, 1.0]]), np.array([2.0, 1.0])
    check_amounts(PROTOTYPES, study, reply(PROTOTYPES, 3, sums=sums, counts=counts), [SAID])
    for changed in ({"sums": sums * 1.02}, {"counts": np.array([2.0, 2.0])}):
        with pytest.raises(MessageError, match=r"array '(sums|counts)' .* possible are"):
            told = reply(PROTOTYPES, 3, **{"sums": sums, "counts": counts, **changed})
            check_amounts(PROTOTYPES, study, told, [SAID])


@pytest.mark.parametrize("there", [1, 9, 15, 127, 255, 4095])
@pytest.mark.parametrize("wanted", [1, 5, 200, 5000])
def test_a_private_site_may_count_all_that_it_has_drawn(there, wanted):
    """Its number is told rounded down, and each unit is drawn by itself."""
    rows = [Record(Path(f"{n}.png"), "a", f"p{n}") for n in range(there)]
    draws = [draw_units(rows, range(there), wanted, seed, "patient") for seed in range(20)]
    for draw in draws:
        assert len(draw.rows) <= most_drawn(draw.announced)
    if there in (15, 255, 4095):  # the number that is told would not do
        assert any(len(draw.rows) > draw.announced for draw in draws)
    assert most_drawn(0) == 0 and most_drawn(100) < 300


def test_an_honest_secure_sum_of_many_private_sites_is_let_through(make_study):
    """Twenty of 127 patients, told as 112, in one sum: the noise alone does not allow for that."""
    distributed = ["privacy.secure_aggregation=true", "privacy.noise=distributed"]
    study = make_study(*PRIVATE, *distributed, "privacy.epsilon=8.0", "pretraining.rounds=0")
    said = {"labelled": 0, "unlabelled": 112, "test": 0}
    counts = 20 * np.array([127.0, 127.0])
    told = reply(CENTRE, 20 * 112, sums=np.zeros((2, 5)), counts=counts)
    check_amounts(CENTRE, study, told, [said] * 20)
    with pytest.raises(MessageError, match="array 'counts' adds up to"):
        told = reply(CENTRE, 20 * 112, sums=np.zeros((2, 5)), counts=10 * counts)
        check_amounts(CENTRE, study, told, [said] * 20)


@pytest.mark.parametrize("sites", [1, 3])
def test_noise_is_allowed_for_and_not_more(make_study, sites):
    study = make_study(*PRIVATE)
    deviation = noise_deviation(study, sites)
    draws = np.random.default_rng(0)
    for factor, fits in ((1.0, True), (100.0, False)):
        noisy = factor * deviation * draws.normal(size=(2, 5))
        counts = 1.0 + factor * deviation / COUNT_SCALE * draws.normal(size=2)
        told = reply(PROTOTYPES, 3, sums=noisy, counts=counts)
        if fits:
            check_amounts(PROTOTYPES, study, told, [SAID] * sites)
            continue
        with pytest.raises(MessageError, match="array 'sums' holds up to"):
            check_amounts(PROTOTYPES, study, told, [SAID] * sites)


def test_squares_are_bounded_by_what_was_counted(make_study):
    study = make_study("alignment.scaling=global")
    arrays = {"sums": np.zeros((2, 3)), "counts": [6.0, 0.0], "squares": np.zeros((2, 3))}
    check_amounts(CENTRE, study, reply(CENTRE, 6, **arrays), [SAID])
    arrays["squares"] = np.full((2, 3), 1.0)
    with pytest.raises(MessageError, match=r"array 'squares' holds up to 1 in row 1, .* of 0 that"):
        check_amounts(CENTRE, study, reply(CENTRE, 6, **arrays), [SAID])


def test_a_state_that_can_be_sent_passes():
    check_state(start_of())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"centre": np.full((2, 4), np.inf, np.float32)}, "array 'centre' would hold NaN or inf"),
        ({"centre": np.full((2, 4), 5e3, np.float32)}, "array 'centre' holds values from 5000"),
        ({"scale": np.zeros((2, 4), np.float32)}, "array 'scale' holds values from 0"),
        ({"bias": np.array([np.nan, 0.0])}, "array 'bias' would hold NaN"),
        ({"means": np.full((2, 4), np.nan, np.float32)}, "array 'means' would hold NaN"),
        ({"centroids": np.full((2, 4), 2.0)}, "array 'centroids' holds values from 2"),
        ({"shared": {"w": np.array([1e7, 0.0])}}, "weight 'w' has values up to 1e+07"),
        ({"shared": {"w": np.array([-np.inf])}}, "array 'w' would hold NaN"),
        ({"optimiser": {"adam/v/w": np.array([np.inf])}}, "array 'adam/v/w' would hold NaN"),
    ],
)
def test_a_state_that_no_site_would_take_is_refused_by_array(changed, words):
    with pytest.raises(MessageError) as refused:
        check_state(replace(start_of(), **changed))
    assert words in str(refused.value)
