"""What goes wrong around a federation: silence, loss, cables, certificates, clocks and disks.

The run completes and says who missed what, or stops with the reason and goes on by the same
command once that is mended.
"""

import os
import time
from pathlib import Path

import pytest
from tests.deployment.conftest import SHORT_DEADLINE, learnt_in

from hica_server.provision import provision
from hica_server.settings import load_settings

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]

COORDINATOR = "coordinator"
SHIFTED_CLOCK = Path(__file__).parent / "shifted_clock"
CUT_SECONDS = float(os.environ.get("HICA_CUT_SECONDS", "90"))
"""The cable is out at least this long, and always until the coordinator has noticed."""


# --- Sites that do not answer --------------------------------------------------------------------


def test_a_site_that_never_answers_is_named_in_every_round_it_misses(make_federation):
    federation = make_federation("federation.quorum=1", SHORT_DEADLINE)
    federation.start_all()
    federation.hold("south", 2)
    with federation.recovery(f"a site never answers ({SHORT_DEADLINE})"):
        result = federation.finish()
    rounds = learnt_in(result)
    assert rounds[-1]["missing"] == ["south"]
    assert list(result["per_site"]) == ["north"]
    assert all("north" in entry["participants"] for entry in rounds)
    assert "<td>south</td><td>no answer</td>" in federation.report()


def test_a_site_that_leaves_for_good_is_named_and_not_waited_for_again(make_federation):
    federation = make_federation("federation.quorum=1")
    federation.start_all()
    federation.wait_for_step("alignment 1/2")
    with federation.recovery("a site leaves for good"):
        federation.kill("south")
    result = federation.finish()
    last = learnt_in(result)[-1]
    assert last["participants"] == ["north"]
    assert "south" in (last["missing"] or last["refused"])
    assert last["seconds"] < federation.scenario.study.federation.deadline
    assert "<td>south</td>" in federation.report()


# --- The network ---------------------------------------------------------------------------------


def test_a_cable_pulled_until_the_site_counts_as_lost_and_put_back(
    federation, make_proxy, assert_as_if_undisturbed
):
    cable = make_proxy(federation)
    federation.reach_through("south", cable.port)
    federation.start_all()
    federation.wait_for_step("alignment 1/2")
    cable.cut()
    out_until = time.monotonic() + CUT_SECONDS
    federation.wait_until(
        lambda: not federation.online("south") and time.monotonic() > out_until, "south lost"
    )
    with federation.recovery("network cut, from the cable's return"):
        cable.mend()
    assert_as_if_undisturbed(federation, federation.finish())


# --- Certificates and clocks ---------------------------------------------------------------------


def test_a_certificate_that_expires_stops_the_coordinator_until_it_is_renewed(
    federation, assert_as_if_undisturbed
):
    folder, study = federation.folder, federation.scenario.study
    federation.start_all()
    federation.wait_for_step("alignment 1/2")
    provision(folder, study, load_settings(folder.root), [], renew=True, days=-1)
    assert federation.wait_for_exit() == 2
    assert "expired" in federation.said() and "--renew" in federation.said()
    federation.command("hica-server", "provision", folder.root, "--renew")
    with federation.recovery("expired certificate, from its renewal"):
        federation.start(COORDINATOR)
    assert_as_if_undisturbed(federation, federation.finish())


def test_a_site_whose_clock_is_ten_minutes_off_is_told_so_and_joins_with_the_right_time(
    federation, assert_as_if_undisturbed
):
    wrong = {"PYTHONPATH": str(SHIFTED_CLOCK), "HICA_TEST_CLOCK": "600"}
    federation.start("north")
    federation.start("south", wrong)
    federation.start(COORDINATOR)
    federation.wait_until(lambda: "clock" in federation.said("south"), "a word on the clock")
    federation.kill("south")
    with federation.recovery("site clock set right"):
        federation.start("south")
    assert_as_if_undisturbed(federation, federation.finish())


# --- Disks ---------------------------------------------------------------------------------------


def test_a_full_disk_of_the_coordinator_stops_it_with_the_reason_and_it_resumes(
    federation, assert_as_if_undisturbed
):
    federation.start_all()
    federation.wait_for_step("alignment 1/2")
    state = federation.folder.run / "state.safetensors"
    federation.fill_disk(federation.pid(COORDINATOR, "serverapp"), state.stat().st_size // 2)
    assert federation.wait_for_exit() == 7
    assert f"{state}: could not be written" in federation.said()
    with federation.recovery("disk of the coordinator full, from its being freed"):
        federation.start(COORDINATOR)
    assert_as_if_undisturbed(federation, federation.finish())


def test_a_full_disk_of_a_site_is_told_by_its_name_and_the_run_resumes(
    federation, assert_as_if_undisturbed
):
    federation.start_all()
    federation.wait_for_step("alignment 1/2")
    runner = federation.pid("south", "runner")
    federation.fill_disk(runner, 0)
    assert federation.wait_for_exit() == 6
    assert "south" in federation.said() and "cannot be written" in federation.said()
    federation.free_disk(runner)
    with federation.recovery("disk of a site full, from its being freed"):
        federation.start(COORDINATOR)
    assert_as_if_undisturbed(federation, federation.finish())
