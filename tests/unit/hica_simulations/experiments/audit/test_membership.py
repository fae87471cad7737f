"""The checks that make an audit honest: it finds what is open, catches what is broken, and proves
nothing against what keeps its promise."""

import numpy as np
import pytest

from hica_simulations.experiments.audit.membership import prototype_trials, update_trials
from hica_simulations.experiments.audit.roc import likelihood_ratio, verdict

TYPICAL, ODD = 0, 1


def of_odd(trials, seen, delta=1e-3):
    scores, inside = trials.scores[seen][:, ODD], trials.inside[:, ODD]
    return verdict(likelihood_ratio(scores, inside) if seen == "model" else scores, inside, delta)


def test_without_privacy_class_sums_give_the_odd_patient_away(world, settings):
    assert (
        of_odd(prototype_trials(world, settings["none"], "insider", 200), "prototypes").auc == 1.0
    )
    assert (
        of_odd(prototype_trials(world, settings["none"], "outsider", 400), "prototypes").auc > 0.9
    )


def test_without_privacy_updates_give_the_odd_patient_away(world, settings):
    trials = update_trials(world, settings["none"], "insider", 80)
    assert of_odd(trials, "update").auc > 0.9
    assert of_odd(trials, "model").auc > 0.9


def test_a_sum_over_sites_hides_nothing_from_who_knows_the_rest(world, settings):
    trials = prototype_trials(world, settings["secure"], "insider", 200)
    assert of_odd(trials, "prototypes").auc == 1.0


def test_a_sum_over_sites_hides_something_from_others(world, settings):
    """Scores spread as the number of others that are drawn anew; members gain as much as before."""
    spread, gain = {}, {}
    for name in ("none", "secure"):
        trials = prototype_trials(world, settings[name], "outsider", 400)
        scores, inside = trials.scores["prototypes"][:, TYPICAL], trials.inside[:, TYPICAL]
        spread[name] = scores[~inside].std()
        gain[name] = scores[inside].mean() - scores[~inside].mean()
    assert spread["secure"] > 1.1 * spread["none"]
    assert gain["secure"] == pytest.approx(gain["none"], abs=0.2)


@pytest.mark.parametrize("name", ["dp-1", "dp-3", "dp-8"])
@pytest.mark.parametrize("attacker", ["insider", "outsider"])
def test_bounds_do_not_pass_the_claim_for_class_sums(world, settings, name, attacker):
    setting = settings[name]
    found = of_odd(prototype_trials(world, setting, attacker, 2000), "prototypes")
    claimed = setting.claimed("prototypes", world.units)
    assert found.bound <= claimed
    assert found.gaussian_bound <= claimed
    assert found.auc > 0.5


def test_class_sums_at_epsilon_8_are_nearly_as_open_as_is_claimed(world, settings):
    """The attack is the best one: little is left between what it proves and the truth."""
    setting = settings["dp-8"]
    found = of_odd(prototype_trials(world, setting, "insider", 5000), "prototypes")
    assert found.gaussian_bound > 0.6 * setting.claimed("prototypes", world.units)


@pytest.mark.parametrize("name", [pytest.param("dp-1", marks=pytest.mark.matrix), "dp-8"])
def test_bounds_do_not_pass_the_claim_for_updates(world, settings, name):
    trials = update_trials(world, settings[name], "insider", 120)
    claimed = settings[name].claimed("update", world.units)
    for seen in ("update", "model"):
        found = of_odd(trials, seen)
        assert found.bound <= claimed
        assert found.gaussian_bound <= claimed


def test_a_broken_mechanism_is_caught_in_class_sums(world, settings):
    setting = settings["control"]
    found = of_odd(prototype_trials(world, setting, "insider", 1000), "prototypes")
    claimed = setting.claimed("prototypes", world.units)
    assert found.bound > claimed
    assert found.gaussian_bound > claimed


def test_a_broken_mechanism_is_caught_in_updates(world, settings):
    setting = settings["control"]
    found = of_odd(update_trials(world, setting, "insider", 150), "update")
    assert found.gaussian_bound > setting.claimed("update", world.units)


def test_trials_are_the_same_again(world, settings):
    for attack, setting in ((prototype_trials, "dp-3"), (update_trials, "dp-3")):
        first, second = (attack(world, settings[setting], "outsider", 3) for _ in range(2))
        assert np.array_equal(first.inside, second.inside)
        for seen, scores in first.scores.items():
            assert np.array_equal(scores, second.scores[seen])
