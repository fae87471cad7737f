import pytest

from hica.privacy.accountant import Charge, epsilon
from hica.privacy.budget import statistics_multiplier
from hica_simulations.experiments.audit.settings import CONTROL, DELTA, settings_of


def test_settings_are_those_of_the_audit(toy_study):
    settings = settings_of(toy_study("alignment.centring=site", "alignment.contrast=batch"))
    assert [each.name for each in settings] == ["none", "secure", "dp-1", "dp-3", "dp-8", "control"]
    assert [each.is_private for each in settings] == [False, False, True, True, True, True]
    assert [each.name for each in settings if each.summed] == ["secure"]
    assert settings[0].training.alignment.contrast == "batch"
    assert settings[2].training.alignment.contrast == "bank"


@pytest.mark.parametrize("delta", [None, 1e-3])
def test_claims_are_the_accountant_s_and_within_the_budget(toy_study, delta):
    study = toy_study(*([f"privacy.delta={delta}"] if delta else []))
    for setting, budget in zip(settings_of(study)[2:5], (1.0, 3.0, 8.0), strict=True):
        assert setting.delta == (delta or DELTA)
        charge = Charge(statistics_multiplier(setting.statistics))
        assert setting.claimed("prototypes", 8) == epsilon([charge], setting.delta)
        assert 0.95 * budget < setting.claimed("prototypes", 8) <= budget
        assert 0.5 * budget < setting.claimed("update", 8) <= budget


def test_nothing_is_claimed_without_noise(toy_study):
    assert settings_of(toy_study())[0].claimed("update", 8) is None


def test_the_control_claims_what_it_does_not_keep(toy_study):
    *_, control = settings_of(toy_study())
    assert control.noise_scale == CONTROL
    assert control.claimed("prototypes", 8) == pytest.approx(1.0, rel=0.05)
