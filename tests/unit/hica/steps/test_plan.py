import itertools
import math

import pytest

from hica.errors import MessageError
from hica.privacy.budget import noisy_turns
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, DRAWN_START, LLOYD, SITE_START
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import PERSONAL
from hica.steps.plan import (
    STEPS,
    all_kinds,
    check_asked,
    kinds_asked,
    plan,
    step_kinds,
    steps_of,
    turn_of,
)
from hica.steps.prototypes import PROTOTYPES
from hica.steps.result import RESULT
from hica.wire.messages import Kind, Request

EVERY = [
    "alignment.rounds=2",
    "pretraining.rounds=2",
    "pretraining.lloyd_rounds=2",
    "calibration.rounds=2",
]
PRIVATE = ["privacy.epsilon=3.0", "privacy.delta=1e-3", "calibration.rounds=0"]
SECURE = "privacy.secure_aggregation=true"


def walk(study):
    """Titles and rounds of the exchanges, in order; what is asked of k-means beside them."""
    return [(turn.title, turn.round, *turn.settings.values()) for turn in plan(study)]


def titles(study):
    return [turn.title for turn in plan(study)]


FIRST = [("centre", 0), ("zero-shot evaluation", 0)]
TRAINING = [
    ("alignment 1/2", 0, 1.0),
    ("centre", 2),
    ("alignment 2/2", 1, pytest.approx(0.5)),
    ("centre", 3),
]
CALIBRATION = [("calibration 1/2", 0), ("calibration 2/2", 1)]
END = ("personal models", 0), ("evaluation", 1), ("telling the end", 0)
START, LLOYD_STEP = ("clusters", 0, "start"), ("clusters", 0, "lloyd")
DRAWN, KEEP = ("clusters", 0), ("clusters", 0, "assign")
ROUNDS = [("pretraining 1/2", 0, 1.0), ("pretraining 2/2", 1, pytest.approx(0.5))]
PROTOTYPE = ("prototypes", 0)


def test_both_stages(toy_study):
    clustering = [START, LLOYD_STEP, LLOYD_STEP, KEEP]
    assert walk(toy_study(*EVERY)) == [
        *FIRST,
        *clustering,
        *ROUNDS,
        ("centre", 1),
        PROTOTYPE,
        *TRAINING,
        *CALIBRATION,
        *END,
    ]


def test_without_stage_1(toy_study):
    study = toy_study(*EVERY, "pretraining.rounds=0")
    assert walk(study) == [*FIRST, PROTOTYPE, *TRAINING, *CALIBRATION, *END]


def test_where_nothing_is_centred_no_mean_is_asked_for(toy_study):
    done = walk(toy_study(*EVERY, "alignment.centring=none"))
    assert done == [turn for turn in walk(toy_study(*EVERY)) if turn[0] != "centre"]


def test_intercepts_can_be_left_out(toy_study):
    study = toy_study(*EVERY, "pretraining.rounds=0", "calibration.rounds=0")
    assert walk(study) == [*FIRST, PROTOTYPE, *TRAINING, *END]


def test_personal_models_can_be_left_out(toy_study):
    with_them = walk(toy_study(*EVERY))
    without = walk(toy_study(*EVERY, "personal.epochs=0"))
    assert without == [turn for turn in with_them if turn != END[0]]


@pytest.mark.parametrize("change", ["train_text_bank=false", "bank_start=text"])
def test_a_bank_that_is_fixed_or_starts_at_the_texts_needs_no_prototypes(toy_study, change):
    study = toy_study(*EVERY, "pretraining.rounds=0", f"alignment.{change}")
    assert walk(study) == [*FIRST, *TRAINING, *CALIBRATION, *END]


@pytest.mark.parametrize(
    ("every", "before"), [(0, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (4, [0, 4])]
)
def test_re_clustering_is_done_on_schedule(toy_study, every, before):
    overrides = ["pretraining.rounds=5", f"pretraining.recluster_every={every}"]
    turns = plan(toy_study(*overrides))
    ends = [at for at, turn in enumerate(turns) if turn.step is ASSIGN]
    assert [turns[at].round for at in ends] == before
    for at in ends:
        assert turns[at + 1].title == f"pretraining {turns[at].round + 1}/5"
        assert [turn.step for turn in turns[at - 3 : at]] == [SITE_START, LLOYD, LLOYD]


def test_a_private_study_estimates_its_centre_once_and_draws_its_start(toy_study):
    study = toy_study(*EVERY, *PRIVATE, "privacy.mechanism=dp-sgd")
    clustering = [DRAWN, LLOYD_STEP, LLOYD_STEP, KEEP]
    alignment = [turn for turn in TRAINING if turn[0] != "centre"]
    assert walk(study) == [*FIRST, *clustering, *ROUNDS, PROTOTYPE, *alignment, *END]


def test_a_secure_study_draws_its_start_too(toy_study):
    with_start = [turn for turn in walk(toy_study(*EVERY)) if turn != START]
    secure = walk(toy_study(*EVERY, SECURE))
    assert secure == [*with_start[:2], DRAWN, *with_start[2:]]


def test_private_prototypes_are_all_that_is_asked_for(toy_study):
    study = toy_study(*PRIVATE, "privacy.mechanism=prototypes", "pretraining.rounds=0")
    assert walk(study) == [("zero-shot evaluation", 0), PROTOTYPE, *END]


def test_only_the_zero_shot_evaluation_may_be_left_out(toy_study):
    optional = [turn for turn in plan(toy_study()) if turn.optional]
    assert [(turn.step, turn.title) for turn in optional] == [(EVALUATION, "zero-shot evaluation")]


def test_a_plan_is_the_same_every_time(toy_study):
    assert plan(toy_study()) == plan(toy_study())


# --- Against formulas ----------------------------------------------------------------------------


def studies(toy_study):
    """A grid over all that decides what is asked for."""
    for secure, rounds, every, lloyd, centring, start, newton in itertools.product(
        (False, True),
        (0, 1, 5),
        (0, 1, 2),
        (1, 3),
        ("global", "none"),
        ("prototypes", "text"),
        (0, 2),
    ):
        yield toy_study(
            f"privacy.secure_aggregation={str(secure).lower()}",
            f"pretraining.rounds={rounds}",
            f"pretraining.recluster_every={every}",
            f"pretraining.lloyd_rounds={lloyd}",
            f"alignment.centring={centring}",
            f"alignment.bank_start={start}",
            f"calibration.rounds={newton}",
        )


def private(study, mechanism):
    """The same study, private; None where there is no such thing."""
    table = study.model_dump(mode="json")
    table["privacy"] |= {"mechanism": mechanism, "epsilon": 3.0, "delta": 1e-3}
    if study.calibration.rounds or (
        mechanism == "prototypes"
        and (study.pretraining.rounds or not study.alignment.starts_at_means)
    ):
        return None
    return type(study).model_validate(table)


def all_studies(toy_study):
    for study in studies(toy_study):
        variants = (study, private(study, "dp-sgd"), private(study, "prototypes"))
        yield from (each for each in variants if each is not None)


def test_every_noisy_turn_is_one_that_the_formula_counts(toy_study):
    checked = 0
    for study in all_studies(toy_study):
        if not study.privacy.is_private:
            continue
        stage = study.pretraining
        every = stage.recluster_every or stage.rounds
        clusterings = math.ceil(stage.rounds / every) if stage.rounds else 0
        expected = 1
        if study.privacy.mechanism == "dp-sgd":
            centres = int(study.alignment.centring == "global")
            means = int(study.alignment.starts_at_means)
            expected = centres + clusterings * stage.lloyd_rounds + means
        assert noisy_turns(study) == expected
        checked += 1
    assert checked > 150


def test_kinds_are_in_the_order_of_their_first_use(toy_study):
    for study in all_studies(toy_study):
        trains = study.privacy.mechanism != "prototypes"
        secure = ["query.keys", "query.shares", "query.survivors", "query.unmask"]
        expected = [
            ("query.capabilities", True),
            *((kind, study.privacy.secure_aggregation) for kind in secure),
            ("train.moments", study.alignment.centring != "none" and trains),
            ("evaluate.metrics", True),
            ("train.clusters", study.pretraining.rounds > 0),
            ("train.pretrain", study.pretraining.rounds > 0),
            ("train.prototypes", study.alignment.starts_at_means),
            ("train.align", trains),
            ("train.calibrate", study.calibration.rounds > 0),
            ("train.personal", True),
            ("evaluate.result", True),
        ]
        assert kinds_asked(study) == [kind for kind, asked in expected if asked]


# --- Lists of steps and kinds --------------------------------------------------------------------


def test_the_steps_in_which_sites_are_asked(toy_study):
    study = toy_study(*PRIVATE, "privacy.mechanism=prototypes", "pretraining.rounds=0")
    assert steps_of(study) == [EVALUATION, PROTOTYPES, PERSONAL, RESULT]
    assert DRAWN_START not in steps_of(toy_study(SECURE))  # the coordinator does it alone


def test_every_kind_is_listed_once():
    assert len(set(all_kinds())) == len(all_kinds())
    assert set(all_kinds()) == {*map(str, Kind), *step_kinds()}
    assert set(step_kinds()) == {step.kind for step in STEPS} - {""}


def test_steps_of_one_kind_have_one_role_and_form_of_request(toy_study):
    """A site is asked by role, and consent shows what is of one kind in one row."""
    for kind in step_kinds():
        steps = [step for step in STEPS if step.kind == kind]
        assert len({(step.role, step.leaves) for step in steps}) == 1


# --- Requests ------------------------------------------------------------------------------------


def test_every_turn_is_found_by_its_request_and_no_two_are_mistaken(toy_study):
    for study in (toy_study(*EVERY), toy_study(*EVERY, SECURE)):
        for turn in plan(study):
            if not turn.step.kind:
                continue
            settings = dict(turn.settings)
            request = Request(turn.step.kind, study, turn.round, settings)
            found = turn_of(request)
            assert found.step is turn.step and found.at == turn.at and found.title == turn.title


def test_what_belongs_to_a_secure_sum_is_no_part_of_the_turn(toy_study):
    request = Request(CENTRE.kind, toy_study(SECURE), 0, {"sum": {"session": "ab"}})
    assert turn_of(request).step is CENTRE


@pytest.mark.parametrize(
    ("round_", "settings"),
    [(0, {"rate": 0.7}), (0, {}), (2, {"rate": 1.0}), (0, {"rate": 1.0, "more": 1}), (-1, {})],
)
def test_a_request_that_is_no_turn_is_refused_in_words(toy_study, round_, settings):
    study = toy_study(*EVERY)
    with pytest.raises(MessageError) as error:
        turn_of(Request(ALIGNMENT.kind, study, round_, {**settings, "sum": {}}))
    assert str(error.value) == (
        f"a run of study {study.sha256[:12]} never asks for train.align, round {round_ + 1}, with "
        f"{settings}, so it was not approved with it: nothing leaves"
    )


def test_a_kind_that_the_study_never_asks_for_is_refused_in_words(toy_study):
    study = toy_study("calibration.rounds=0")
    check_asked(Request(ALIGNMENT.kind, study))
    check_asked(Request(Kind.CAPABILITIES, study))
    for kind in ("train.calibrate", Kind.KEYS, "train.backdoor", ""):
        with pytest.raises(MessageError, match=f"never asks for {kind}, so it was not approved"):
            check_asked(Request(kind, study))


def test_no_site_is_asked_for_a_drawn_start(toy_study):
    with pytest.raises(MessageError, match="never asks for"):
        check_asked(Request(DRAWN_START.kind, toy_study(SECURE)))
