"""What a site releases, with noise that is none, all ones, or counted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hica.errors import ConfigurationError, HicaError, MessageError
from hica.privacy import dp_sgd, noise
from hica.privacy.accountant import Charge
from hica.privacy.budget import rounds_of, statistics_multiplier, training_multiplier
from hica.privacy.release import (
    EVERYONE,
    MOST_ROWS,
    Guarantee,
    check_request,
    private_schedule,
    release,
    rows_at_a_time,
    units_of,
    with_more_noise,
)
from hica.privacy.statistics import SENSITIVITY
from hica.steps.alignment import ALIGNMENT, schedule_of
from hica.steps.arrays import COUNT_SCALE, counts, sums
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, LLOYD, SITE_START
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan, turn_of
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.steps.step import Answer, Rows, Statistic
from hica.wire.messages import Request

PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
]


class Constant:
    """Noise of which every number is the same."""

    name = "constant"

    def __init__(self, value):
        self.value = value

    def normal(self, shape):
        return np.full(shape, self.value)

    def uniform(self, n):
        return np.zeros(n)  # every unit is in every step


class Books:
    """A ledger and a source of noise that note what is done with them, and in which order."""

    def __init__(self, noise=0.0, refuse=False, sum_over=None):
        self.done, self.spent, self.holds = [], [], []
        self.source, self.refuse, self.sum_over = Constant(noise), refuse, sum_over

    def charge(self, spent, holds):
        self.done.append("charge")
        if self.refuse:
            raise HicaError("the site's budget is spent")
        self.spent.append(spent)
        self.holds.append(holds)

    def noise(self):
        self.done.append("noise")
        return self.source

    @property
    def guarantee(self):
        return Guarantee(self.charge, self.noise, self.sum_over)


@pytest.fixture(autouse=True)
def _fine_grid(monkeypatch):
    """So fine that what leaves without noise is exact."""
    monkeypatch.setattr(noise, "GRID", 2.0**-45)


@pytest.fixture
def private(toy_study):
    return lambda *overrides: toy_study(*PRIVATE, *overrides)


@pytest.fixture
def released(ask):
    """What a site releases for a step's request, and the books that were kept."""

    def released(site, step, books=None, number=0):
        books = books or Books()
        request = ask(site.study, step, site.asked_with(), number)
        return release(step, site, site.model, request, books.guarantee), books

    return released


# --- Requests ------------------------------------------------------------------------------------


@pytest.fixture
def check(new_site, toy_study, ask):
    """Checks the request of a step with some arrays changed; None takes one away."""

    def check(step, study=None, **changes):
        study = study or toy_study()
        request = ask(study, step, new_site(study).asked_with())
        arrays = {**request.arrays, **changes}
        arrays = {name: value for name, value in arrays.items() if value is not None}
        check_request(turn_of(request), replace(request, arrays=arrays), width=128)

    return check


def test_what_a_coordinator_sends_is_let_through(new_site, toy_study, ask):
    for overrides in ([], ["alignment.scaling=global"], ["federation.precision=half"], PRIVATE):
        study = toy_study(*overrides)
        state = new_site(study).asked_with()
        for step in {turn.step for turn in plan(study) if turn.step.kind}:
            request = ask(study, step, state)
            check_request(turn_of(request), request, width=128)


def unit(*shape):
    return np.full(shape, 1 / shape[-1] ** 0.5, np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bias": None}, "train.align: arrays missing or not asked for: ['bias']"),
        ({"extra": np.zeros(1)}, "train.align: arrays missing or not asked for: ['extra']"),
        (
            {"centroids": np.zeros((3, 128))},
            "train.align: arrays missing or not asked for: ['centroids']",
        ),
        (
            {"anchor.classes": unit(3, 128)},
            "array 'anchor.classes' has shape (3, 128) and type float32, expected (2, 128) and f",
        ),
        (
            {"anchor.findings": unit(4, 64)},
            "array 'anchor.findings' has shape (4, 64) and type float32, expected (4, 128)",
        ),
        ({"centre": unit(128)}, "array 'centre' has shape (128,) and type float32, expected (2, 1"),
        (
            {"scale": np.ones((2, 128))},
            "array 'scale' has shape (2, 128) and type float64, expected (2, 128) and float32",
        ),
        (
            {"bias": np.zeros(2, np.int64)},
            "array 'bias' has shape (2,) and type int64, expected (2,) and float64",
        ),
        ({"anchor.classes": 2 * unit(2, 1) * unit(2, 128)}, None),
        (
            {"anchor.classes": np.full((2, 128), 1.02, np.float32)},
            "array 'anchor.classes' holds values from 1.02 to 1.02, possible are -1.01 to 1.01",
        ),
        (
            {"centre": np.full((2, 128), 4097, np.float32)},
            "array 'centre' holds values from 4097 to 4097, possible are -4096 to 4096",
        ),
        (
            {"scale": np.zeros((2, 128), np.float32)},
            "array 'scale' holds values from 0 to 0, possible are 1e-12 to 4096",
        ),
        ({"bias": np.array([0.0, -2e6])}, "array 'bias' holds values from -2e+06 to 0, possible"),
        (
            {"shared.bank.classes": np.zeros((2, 128))},
            "weight 'bank.classes' has type float64 and values up to 0: expected float32",
        ),
        (
            {"shared.bank.classes": np.full((2, 128), -2e6, np.float32)},
            "weight 'bank.classes' has type float32 and values up to 2e+06: expected float32, and "
            "at most 1e+06",
        ),
    ],
)
def test_arrays_that_are_not_as_declared_are_refused_by_name(check, changes, words):
    """Before any image is touched: nothing of the site is handed in."""
    if words is None:  # the longest rows that there may be
        return check(ALIGNMENT, **changes)
    with pytest.raises(MessageError) as error:
        check(ALIGNMENT, **changes)
    assert words in str(error.value)
    return None


@pytest.mark.parametrize(
    ("centroids", "words"),
    [
        (np.zeros((4, 128)), "array 'centroids' has shape (4, 128) and type float64, expected (3,"),
        (np.zeros((3, 64)), "array 'centroids' has shape (3, 64) and type float64, expected (3, 1"),
        (np.zeros((0, 128)), "array 'centroids' has shape (0, 128) and type float64, expected (1,"),
        (np.float64(0.0), "array 'centroids' has shape () and type float64, expected (1, 128)"),
        (np.zeros((3, 128), np.float32), "type float32, expected (3, 128) and float64"),
        (np.full((3, 128), 1.5), "array 'centroids' holds values from 1.5 to 1.5, possible"),
        (None, "arrays missing or not asked for: ['centroids']"),
    ],
)
@pytest.mark.parametrize("step", [LLOYD, ASSIGN, PRETRAINING])
def test_centroids_that_are_not_as_declared_are_refused(check, step, centroids, words):
    with pytest.raises(MessageError) as error:
        check(step, centroids=None if centroids is None else np.asarray(centroids))
    assert words in str(error.value)


def test_of_a_private_study_there_are_as_many_centroids_as_it_says(check, private):
    """A start that is drawn has them all; one less would be an index out of range for a patient."""
    for step in (LLOYD, ASSIGN, PRETRAINING):
        with pytest.raises(
            MessageError, match=r"'centroids' has shape \(2, 128\).*expected \(3, 128\)"
        ):
            check(step, private(), centroids=np.zeros((2, 128)))


def test_there_may_be_fewer_centroids_than_the_study_wants(check):
    """Where sites have fewer distinct ones of their own."""
    check(LLOYD, centroids=np.zeros((2, 128)))
    check(LLOYD, centroids=np.zeros((1, 128)))


def test_weights_in_half_precision_are_of_that_type(check, toy_study):
    half = toy_study("federation.precision=half")
    check(ALIGNMENT, half, **{"shared.bank.classes": np.zeros((2, 128), np.float16)})
    with pytest.raises(MessageError, match=r"'bank\.classes' has type float32 .*expected float16"):
        check(ALIGNMENT, half, **{"shared.bank.classes": np.zeros((2, 128), np.float32)})


# --- Sums of a private study ---------------------------------------------------------------------


def statistics(study):
    """Every statistic that a private study releases."""
    return [
        step
        for step in dict.fromkeys(turn.step for turn in plan(study))
        if isinstance(step, Statistic)
    ]


def test_these_are_the_statistics_of_a_private_study(private):
    assert statistics(private()) == [CENTRE, LLOYD, PROTOTYPES]


def moves_of(step, study):
    return {array.name: array.moves for array in step.answers(study)}["sums"]


@pytest.mark.parametrize("step", [CENTRE, LLOYD, PROTOTYPES])
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), st.booleans())
@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_patient_moves_what_is_released_by_no_more_than_is_declared(
    private, new_site, released, step, patients, narrow
):
    study = private("privacy.cluster_dimensions=5") if narrow else private()
    patients = ["a", *patients]  # with `a` and without
    site = new_site(study, **{step.role: patients})
    whole, _ = released(site, step)
    kept = torch.tensor([row for row, who in enumerate(patients) if who != "a"], dtype=torch.long)
    site.parts[step.role] = site.parts[step.role].rows(kept)
    if len(kept):
        rest = released(site, step)[0].arrays
    else:
        rest = {name: np.zeros_like(value) for name, value in whole.arrays.items()}
    change = {name: value - rest[name] for name, value in whole.arrays.items()}
    norm = math.hypot(
        np.linalg.norm(change["sums"]), COUNT_SCALE * np.linalg.norm(change["counts"])
    )
    assert 0 < norm <= moves_of(step, study) * SENSITIVITY + 1e-6


def test_of_a_patient_with_one_image_the_sensitivity_is_reached(private, new_site, released):
    """So no less noise would do."""
    site = new_site(private(), labelled=["a"])
    arrays = released(site, PROTOTYPES)[0].arrays
    norm = math.hypot(np.linalg.norm(arrays["sums"]), COUNT_SCALE * arrays["counts"].sum())
    assert norm == pytest.approx(SENSITIVITY, rel=1e-6)


@pytest.mark.parametrize("step", [CENTRE, LLOYD, PROTOTYPES])
@pytest.mark.parametrize(
    ("sum_over", "share", "holds"),
    [
        (None, 1.0, EVERYONE),
        (3, 3**-0.5, "the coordinator, of the sum over 3 sites or more"),
    ],
)
def test_noise_is_as_the_declared_sensitivity_needs_it(
    private, new_site, released, step, sum_over, share, holds
):
    study = private()
    site = new_site(study)
    exact, _ = released(site, step)
    noisy, books = released(site, step, Books(noise=1.0, sum_over=sum_over))
    multiplier = statistics_multiplier(study)
    deviation = multiplier * moves_of(step, study) * SENSITIVITY * share
    for name, expected in (("sums", deviation), ("counts", deviation / COUNT_SCALE)):
        added = noisy.arrays[name] - exact.arrays[name]
        np.testing.assert_allclose(added, expected, rtol=1e-9)
    assert books.spent == [Charge(multiplier)] and books.holds == [holds]
    assert noisy.arrays.keys() == {"sums", "counts"}


@pytest.mark.parametrize("unit", ["patient", "image"])
def test_images_of_a_patient_share_its_weight_unless_an_image_is_the_unit(
    private, new_site, released, unit
):
    site = new_site(private(f"privacy.unit={unit}"), labelled=["a", "a", "b", "c"])
    found = released(site, PROTOTYPES)[0]
    expected = {"patient": [0.5 + 1, 0.5 + 1], "image": [2.0, 2.0]}[unit]
    assert found.arrays["counts"].tolist() == expected
    assert found.examples == {"patient": 3, "image": 4}[unit]
    groups = site.parts["labelled"].groups
    names = {"patient": ["a", "a", "b", "c"], "image": ["0", "1", "2", "3"]}[unit]
    assert units_of(site.study, groups) == names


def test_sums_of_clusters_are_in_the_subspace_that_the_study_names(private, new_site, released):
    site = new_site(private("privacy.cluster_dimensions=5"))
    found = released(site, LLOYD)[0]
    assert found.arrays["sums"].shape == (3, 5) and found.arrays["counts"].sum() == 4.0
    assert found.examples == 4


def test_a_private_centre_is_of_all_images_and_none_is_kept(private, new_site, released):
    site = new_site(private())
    found = released(site, CENTRE)[0]
    assert found.arrays["counts"].tolist() == pytest.approx([4.0, 4.0 - 1.0])  # p1 has no region
    assert (found.examples, found.keep, found.details) == (4, {}, {})
    assert "centre" not in site.looked


# --- The ledger ----------------------------------------------------------------------------------


@pytest.fixture
def ready(private, new_site, ask):
    """A site of a private study that has kept the clusters of its images."""
    site = new_site(private())
    site.keep(ASSIGN.answer(site, site.model, ask(site.study, ASSIGN, site.asked_with())).keep)
    return site


@pytest.mark.parametrize("step", [CENTRE, LLOYD, PROTOTYPES, ALIGNMENT, PRETRAINING])
def test_what_is_spent_is_asked_for_before_noise_is_drawn(ready, released, step):
    assert released(ready, step)[1].done == ["charge", "noise"]


@pytest.mark.parametrize("step", [CENTRE, LLOYD, PROTOTYPES, ALIGNMENT, PRETRAINING])
def test_where_the_ledger_refuses_nothing_is_released(ready, released, step):
    before = {name: value.clone() for name, value in ready.model.shared().items()}
    books = Books(refuse=True)
    with pytest.raises(HicaError, match="budget is spent"):
        released(ready, step, books)
    assert books.done == ["charge"]
    for name, value in ready.model.shared().items():  # and nothing was trained
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("step", [EVALUATION, ASSIGN])
def test_what_needs_no_noise_is_exact_and_costs_nothing(ready, released, ask, step):
    found, books = released(ready, step)
    request = ask(ready.study, step, ready.asked_with())
    expected = step.answer(ready, ready.model, request)
    assert (found.arrays, found.details) == (expected.arrays, expected.details)
    assert found.keep.keys() == expected.keep.keys() and books.done == []


@pytest.mark.parametrize("step", [CENTRE, LLOYD, SITE_START, PROTOTYPES, CALIBRATION, EVALUATION])
def test_without_privacy_the_exact_answer_leaves(new_site, toy_study, released, ask, step):
    site = new_site(toy_study())
    found, books = released(site, step)
    expected = step.answer(site, site.model, ask(site.study, step, site.asked_with()))
    assert found.arrays.keys() == expected.arrays.keys() and books.done == []
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value)
    assert (found.examples, found.details) == (expected.examples, expected.details)


# --- Steps without a form with noise -------------------------------------------------------------


def refuses(step, site, error, words, done=()):
    books = Books()
    request = Request(step.kind, site.study, 0, {}, site.asked_with().arrays())
    with pytest.raises(error, match=words):
        release(step, site, site.model, request, books.guarantee)
    assert books.done == list(done)


def test_a_step_without_a_noisy_form_is_refused_in_a_private_study(ready):
    words = "clusters: has no form with noise, so a private study cannot ask for it"
    refuses(SITE_START, ready, ConfigurationError, words)


class Unbounded(Statistic):
    """Sums of which a patient may move more than is declared, or an unknown part."""

    name, kind, role, leaves = "unbounded", "train.unbounded", "labelled", "sums"
    declared = (sums((1, "width"), 4.0, 1.0), counts(1, 4.0, 1.0))

    def __init__(self, *declared):
        self.declared = declared or self.declared

    def turns(self, study):
        yield from ()

    def answers(self, study):
        return self.declared

    def answer(self, data, model, request):
        return Answer({"sums": np.ones((1, 128)), "counts": np.ones(1)}, 1)

    def combine(self, state, received):
        return state


def test_a_statistic_whose_rows_are_not_known_is_refused(ready):
    words = "unbounded: nothing bounds what one patient changes of it"
    refuses(Unbounded(), ready, ConfigurationError, words, ["charge"])  # and no noise


@pytest.mark.parametrize(
    "declared",
    [
        (sums((1, "width"), 4.0), counts(1, 4.0)),
        (sums((1, "width"), 4.0, 1.0), counts(1, 4.0)),
        (sums((1, "width"), 4.0, 1.0), counts(1, 4.0, 2.0)),
        (*Unbounded.declared, replace(Unbounded.declared[1], name="squares")),
    ],
)
def test_a_statistic_that_declares_no_bound_is_refused(ready, declared):
    refuses(Unbounded(*declared), ready, TypeError, "declares no bound on what one patient changes")


def test_rows_longer_than_they_may_be_are_made_shorter(ready):
    class Long(Unbounded):
        def rows(self, data, model, request):
            return Rows(np.full((4, 128), 100.0), np.zeros(4, np.int64), np.arange(4), 4)

    request = Request(Long.kind, ready.study, 0, {}, {})
    found = release(Long(), ready, ready.model, request, Books().guarantee)
    assert np.linalg.norm(found.arrays["sums"]) == pytest.approx(4.0)
    assert found.arrays["counts"].tolist() == [4.0]


def test_a_site_whose_images_fail_is_answered_for_as_one_without_patients(
    ready, released, monkeypatch, caplog
):
    """A refusal would tell that a patient is there whose image makes it fail."""
    expected = {name: np.zeros_like(v) for name, v in released(ready, PROTOTYPES)[0].arrays.items()}
    monkeypatch.setattr(type(PROTOTYPES), "rows", lambda *_: 1 / 0)
    found, books = released(ready, PROTOTYPES)
    assert found.examples == 4 and books.done == ["charge", "noise"]
    for name, value in expected.items():
        np.testing.assert_array_equal(found.arrays[name], value)
    assert "answered as by a site without patients" in caplog.text


def test_more_noise_makes_the_noise_of_fewer_sites(private, new_site, released):
    study = private()
    site = new_site(study)
    exact = released(site, CENTRE)[0].arrays["sums"]
    three = released(site, CENTRE, Books(noise=1.0, sum_over=3))[0]
    two = with_more_noise(CENTRE, study, three, (3, 2), Constant(1.0)).arrays["sums"]
    first, more = three.arrays["sums"] - exact, two - three.arrays["sums"]
    deviation = statistics_multiplier(study) * moves_of(CENTRE, study) * SENSITIVITY
    np.testing.assert_allclose(first**2 + more**2, deviation**2 / 2, rtol=1e-9)


# --- Training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [ALIGNMENT, PRETRAINING])
def test_training_that_fails_is_answered_for_as_by_a_site_without_patients(
    private, new_site, ask, released, monkeypatch, caplog, step
):
    def site():
        made = new_site(private())
        made.keep(ASSIGN.answer(made, made.model, ask(made.study, ASSIGN, made.asked_with())).keep)
        return made

    class Nobody(Constant):
        def uniform(self, n):
            return np.ones(n)  # no unit is in any step

    books = Books()
    books.source = Nobody(0.5)
    expected = released(site(), step, books)[0]
    calls = []

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise IndexError("of one patient only")
        return real(*arguments)

    real = dp_sgd.clipped_sum
    monkeypatch.setattr(dp_sgd, "clipped_sum", fails)
    found = released(site(), step, Books(noise=0.5))[0]
    assert same(found, expected) and "answered as by a site without patients" in caplog.text


def align(site, round_=0, rate=1.0):
    """A round of stage 2 without privacy; any round and rate, whatever the plan says."""
    arrays = site.asked_with().arrays()
    request = Request(ALIGNMENT.kind, site.study, round_, {"rate": rate}, arrays)
    books = Books()
    found = release(ALIGNMENT, site, site.model, request, books.guarantee)
    assert books.done == []
    return found


def same(one, other):
    return all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_a_round_repeats_to_the_bit_and_another_round_or_site_draws_anew(new_site, toy_study):
    study = toy_study("alignment.batch_size=2")
    first, again = (align(new_site(study)) for _ in range(2))
    assert same(first, again) and first.details == again.details
    assert not same(first, align(new_site(study), round_=1))
    assert not same(first, align(new_site(study, "south")))


def test_the_rate_scales_the_step_of_tower_and_bank(new_site, toy_study):
    site = new_site(toy_study())
    sent = site.asked_with().arrays()
    still = align(site, rate=0.0)
    for name, value in still.arrays.items():
        np.testing.assert_array_equal(value, sent[name])
    moved = align(site, rate=1.0)
    for name in ("shared.tower.adapter.up.weight", "shared.bank.classes", "shared.bank.findings"):
        assert not np.array_equal(moved.arrays[name], sent[name])


@pytest.mark.parametrize(("unit", "pool", "shots"), [("patient", 4, 3), ("image", 6, 4)])
def test_a_private_round_is_charged_as_the_budget_counts_it(
    private, new_site, released, unit, pool, shots
):
    study = private(f"privacy.unit={unit}", "alignment.batch_size=2")
    site = new_site(study, labelled=["p0", "p0", "p1", "p2"])
    found, books = released(site, ALIGNMENT)
    multiplier = training_multiplier(study, {"unlabelled": pool, "labelled": shots})
    rounds = rounds_of(ALIGNMENT, study, shots)
    assert books.spent == [Charge(multiplier, rounds.sampling_rate, rounds.steps)]
    assert books.holds == [EVERYONE]
    assert found.details == {}  # a loss would need noise, too
    assert found.examples == shots


def test_images_of_a_stage_that_the_study_has_not_are_not_looked_at(private, new_site, released):
    site = new_site(private("pretraining.rounds=0"))
    _, books = released(site, ALIGNMENT)
    assert "unlabelled" not in site.looked
    multiplier = training_multiplier(site.study, {"unlabelled": 0, "labelled": 4})
    assert books.spent[0].noise_multiplier == multiplier


def test_training_of_a_private_study_has_the_site_s_own_noise_however_sums_are_protected(
    private, new_site, released
):
    """Clipped gradients are no release of their own: noise is never shared out here."""
    site = new_site(private())
    _, alone = released(site, ALIGNMENT, Books())
    _, among = released(site, ALIGNMENT, Books(sum_over=3))
    assert among.spent == alone.spent and among.holds == [EVERYONE]


def test_noise_moves_weights_as_far_as_dp_sgd_says(private, new_site, released):
    site, other = (new_site(private()) for _ in range(2))
    quiet, loud = released(site, ALIGNMENT)[0], released(other, ALIGNMENT, Books(noise=1.0))[0]
    assert not same(quiet, loud)


def test_a_schedule_has_the_rates_of_a_round_without_privacy(private, new_site):
    study = private("alignment.batch_size=2", "privacy.max_gradient_norm=0.7")
    plain, rounds = schedule_of(study, 0.5), rounds_of(ALIGNMENT, study, 4)
    found = private_schedule(study, plain, rounds, 1.5, new_site(study).model, views=3)
    assert (found.learning_rate, found.bank_learning_rate, found.weight_decay, found.text_pull) == (
        plain.learning_rate,
        plain.bank_learning_rate,
        plain.weight_decay,
        plain.text_pull,
    )
    assert (found.steps, found.sampling_rate) == (rounds.steps, rounds.sampling_rate)
    assert (found.noise_multiplier, found.max_norm, found.views) == (1.5, 0.7, 3)
    assert found.micro_batch == MOST_ROWS


@pytest.mark.parametrize(
    ("weights", "rows"), [(0, MOST_ROWS), (33_280, MOST_ROWS), (3_000_000, 44), (86_000_000, 1)]
)
def test_the_gradients_that_are_held_have_a_bound(weights, rows):
    assert rows_at_a_time(weights) == rows
