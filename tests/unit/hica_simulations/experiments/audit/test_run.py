import json

import pytest

from hica.errors import ConfigurationError
from hica_simulations.experiments.audit.run import audit, conclusion
from hica_simulations.scenario import load_scenario


def row(setting, seen="update", refuted=False, decisive=True, auc=0.5, canary="odd"):
    return {
        "setting": setting,
        "seen": seen,
        "refuted": refuted,
        "decisive": decisive,
        "auc": auc,
        "canary": canary,
    }


def test_a_refuted_claim_is_named_and_the_control_s_is_not():
    said = conclusion([row("dp-1", refuted=True), row("dp-3"), row("control", refuted=True)])
    assert said == {
        "refuted": ["dp-1"],
        "catches_control": {"update": True},
        "finds_members": False,
    }


def test_members_are_found_where_nothing_protects_them():
    assert conclusion([row("none", auc=0.95)])["finds_members"]
    assert not conclusion([row("none", auc=0.95, canary="typical")])["finds_members"]


def test_too_few_trials_are_refused(small_audit, place):
    with pytest.raises(ConfigurationError, match=r"--trials 8: give 40 or more"):
        audit(load_scenario(small_audit), place, 8)


def test_json_is_strict(tmp_path):
    from hica.wire.checkpoint import write_json

    write_json(tmp_path / "a.json", conclusion([]))
    assert json.loads((tmp_path / "a.json").read_text())["refuted"] == []
