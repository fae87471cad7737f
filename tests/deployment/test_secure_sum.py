"""Secure aggregation between real processes over TLS, with keys that came by enrolment and kits."""

import os
import signal
from pathlib import Path

import pytest
from tests.deployment.conftest import SHORT_DEADLINE, learnt_in

from hica.wire.messages import SECURE_SUM
from hica_client.audit import verify

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]

MORE_SITES = """
[[simulation.sites]]
name = "east"
[[simulation.sites]]
name = "west"
"""
OVERRIDES = ("privacy.secure_aggregation=true", "federation.quorum=3", "alignment.rounds=1")
COORDINATOR = "coordinator"
IN_THE_MIDDLE = {"PYTHONPATH": str(Path(__file__).parent / "evil_coordinator")}
SUMMED = {"train.prototypes", "train.align"}


@pytest.fixture
def scenario_file(scenario_file):
    """Four sites: one may drop out."""
    scenario_file.write_text(scenario_file.read_text() + MORE_SITES)
    return scenario_file


def test_a_secure_study_ends_as_its_simulation_and_only_masked_numbers_left(
    make_federation, assert_as_if_undisturbed
):
    federation = make_federation(*OVERRIDES, "alignment.bank_start=prototypes")
    federation.start_all()
    result = federation.finish()
    assert_as_if_undisturbed(federation, result)
    for name in federation.names:
        log = verify(federation.site(name).audit_log)
        assert {entry["decision"] for entry in log} == {"sent"}
        assert {*SECURE_SUM, *SUMMED} <= {entry["kind"] for entry in log}
        for entry in (entry for entry in log if entry["kind"] in SUMMED):
            types = {type_ for _, type_, _ in entry["arrays"].values()}
            assert types <= {"uint32", "uint64"}
            assert (entry["examples"], entry["details"]) == (0, [])


def test_a_site_that_does_not_answer_drops_out_of_the_sum(make_federation):
    federation = make_federation(*OVERRIDES, "alignment.rounds=2", SHORT_DEADLINE)
    federation.start_all()
    federation.wait_for_step("alignment 1/2")
    runner = federation.pid("west", "runner")
    os.kill(runner, signal.SIGSTOP)
    federation.wait_for_step("alignment 2/2")
    os.kill(runner, signal.SIGCONT)
    result = federation.finish()
    first, second = (entry for entry in result["rounds"] if entry["stage"] == "alignment")
    assert set(first["participants"]) >= {"north", "south", "east"}
    assert ("west" in first["missing"]) == ("west" not in first["participants"])
    assert set(second["participants"]) >= {"north", "south", "east"}


def test_every_site_refuses_a_coordinator_that_hands_on_keys_of_its_own(make_federation):
    federation = make_federation(*OVERRIDES, "federation.retries=0")
    for name in federation.names:
        federation.start(name)
    federation.start(COORDINATOR, IN_THE_MIDDLE)
    assert federation.wait_for_exit() == 6
    said = federation.said()
    assert "north: failed at the site: MessageError: the keys of 'south' are not signed" in said
    assert "south: failed at the site: MessageError: the keys of this site were altered" in said
    assert "nothing was learnt of any site" in said
    for name in federation.names:
        log = verify(federation.site(name).audit_log)
        assert not [entry for entry in log if entry["kind"].startswith("train.")]


def test_below_the_threshold_there_is_no_sum_and_the_run_goes_on_once_the_sites_are_back(
    make_federation,
):
    federation = make_federation(*OVERRIDES, SHORT_DEADLINE, "federation.retries=0")
    federation.start_all()
    federation.wait_for_step("alignment 1/1")
    runners = [federation.pid(name, "runner") for name in ("east", "west")]
    for runner in runners:
        os.kill(runner, signal.SIGSTOP)
    assert federation.wait_for_exit() == 6
    assert "the threshold of the secure sum is 3" in federation.said()
    for runner in runners:
        os.kill(runner, signal.SIGCONT)
    result = federation.finish_by_trying()
    assert len(learnt_in(result)[-1]["participants"]) >= 3
