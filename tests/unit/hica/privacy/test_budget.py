import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hica.privacy.accountant import Charge, epsilon
from hica.privacy.budget import (
    Rounds,
    noise_deviation,
    noisy_turns,
    rounds_of,
    statistics_multiplier,
    training_multiplier,
)
from hica.privacy.statistics import SENSITIVITY
from hica.steps.alignment import ALIGNMENT
from hica.steps.pretraining import PRETRAINING
from hica.study import Study

CLASSES = [{"name": "a", "prompts": ["an a"]}, {"name": "b", "prompts": ["a b"]}]


def study(mechanism="dp-sgd", epsilon=3.0, delta=1e-3, **sections):
    privacy = {"mechanism": mechanism, "epsilon": epsilon, "delta": delta}
    privacy |= sections.pop("privacy", {})
    table = {"study": {"name": "s"}, "classes": CLASSES, "privacy": privacy}
    table |= {"calibration": {"rounds": 0}}
    if mechanism == "prototypes":
        table |= {"pretraining": {"rounds": 0}}
    return Study.model_validate(table | sections)


def units(pool, labelled):
    return {"unlabelled": pool, "labelled": labelled}


def whole(asked, pool, labelled):
    """All that a site is charged for in a run."""
    charges = [Charge(statistics_multiplier(asked), 1.0, noisy_turns(asked))]
    if asked.privacy.mechanism == "prototypes":
        return charges
    multiplier = training_multiplier(asked, units(pool, labelled))
    for stage in (rounds_of(PRETRAINING, asked, pool), rounds_of(ALIGNMENT, asked, labelled)):
        if stage.rounds:
            charges += [Charge(multiplier, stage.sampling_rate, stage.steps)] * stage.rounds
    return charges


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1 + 5 + 1),
        ({"pretraining": {"rounds": 0}}, 1 + 1),
        ({"pretraining": {"rounds": 5, "recluster_every": 2, "lloyd_rounds": 3}}, 1 + 3 * 3 + 1),
        ({"alignment": {"centring": "none"}}, 5 + 1),
        ({"alignment": {"bank_start": "text"}}, 1 + 5),
        ({"alignment": {"train_text_bank": False}}, 1 + 5),
    ],
)
def test_every_statistic_of_the_plan_is_counted(changes, count):
    assert noisy_turns(study(**changes)) == count


def test_prototypes_are_one_release():
    assert noisy_turns(study("prototypes")) == 1


@given(
    st.sampled_from(["dp-sgd", "prototypes"]),
    st.sampled_from([0.5, 1.0, 3.0, 8.0]),
    st.integers(1, 200),
    st.integers(1, 200),
)
@settings(deadline=None, max_examples=6)  # each takes a second
def test_the_whole_run_keeps_within_the_budget_and_uses_it(mechanism, budget, pool, labelled):
    asked = study(mechanism, budget)
    spent = epsilon(whole(asked, pool, labelled), 1e-3)
    assert 0.99 * budget < spent <= budget


def test_a_smaller_share_for_training_leaves_less_noise_in_the_statistics():
    little = study(privacy={"training_share": 0.5})
    much = study(privacy={"training_share": 0.9})
    assert statistics_multiplier(little) < statistics_multiplier(much)
    assert training_multiplier(little, units(50, 50)) > training_multiplier(much, units(50, 50))


def test_without_statistics_training_has_the_whole_budget():
    alone = study(pretraining={"rounds": 0}, alignment={"centring": "none", "bank_start": "text"})
    stage = rounds_of(ALIGNMENT, alone, 40)
    charge = Charge(training_multiplier(alone, units(0, 40)), stage.sampling_rate, 1)
    assert noisy_turns(alone) == 0
    assert 2.97 < epsilon([charge] * (stage.steps * stage.rounds), 1e-3) <= 3.0


def test_batches_become_probabilities_and_epochs_steps():
    asked = study(alignment={"batch_size": 16, "local_epochs": 3, "rounds": 4})
    assert rounds_of(ALIGNMENT, asked, 64) == Rounds(0.25, 12, 4, 16.0)
    assert rounds_of(ALIGNMENT, asked, 10) == Rounds(1.0, 3, 4, 10.0)
    assert rounds_of(ALIGNMENT, asked, 0).rounds == 0
    asked = study(pretraining={"batch_size": 8, "local_epochs": 2, "rounds": 7})
    assert rounds_of(PRETRAINING, asked, 32) == Rounds(0.25, 8, 7, 8.0)


def test_a_site_without_images_of_a_stage_has_the_whole_budget_for_the_other():
    asked = study()
    both = training_multiplier(asked, units(50, 50))
    assert training_multiplier(asked, units(0, 50)) < both
    assert training_multiplier(asked, units(50, 0)) < both


def test_a_stage_that_the_study_has_not_costs_nothing():
    without = study(pretraining={"rounds": 0})
    one, other = (training_multiplier(without, units(pool, 50)) for pool in (0, 50))
    assert one == other


def test_the_noise_of_a_sum_grows_with_the_sites_unless_it_is_shared_out():
    local = study()
    one = statistics_multiplier(local) * SENSITIVITY
    assert noise_deviation(local, 4) == pytest.approx(2 * one, rel=1e-12)
    shared = study(privacy={"secure_aggregation": True, "noise": "distributed"})
    assert noise_deviation(shared, 4) == pytest.approx(one * (4 / 3) ** 0.5, rel=1e-12)


def test_a_study_without_privacy_has_no_noise():
    table = {"study": {"name": "s"}, "classes": CLASSES}
    assert noise_deviation(Study.model_validate(table), 4) == 0.0
