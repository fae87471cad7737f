"""The end of a study reaches everybody: who is there, and who was away."""

import pytest
from tests.deployment.conftest import SHORT_DEADLINE

from hica.steps.result import RESULT
from hica_client.audit import verify
from hica_client.result import read_result
from hica_simulations.deployment import COORDINATOR, environment, program, started

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]


def is_over(federation, name):
    return "is over; your result: hica-client result" in federation.said(name)


def test_a_site_that_was_away_at_the_end_is_told_when_it_is_back(make_federation):
    federation = make_federation("federation.quorum=1", SHORT_DEADLINE)
    federation.start_all()
    federation.hold("south", 2)
    federation.kill("south")
    federation.release()
    assert federation.finish()["rounds"][-1]["participants"] == ["north"]
    assert federation.wait_for_exit("north") == 0 and is_over(federation, "north")

    federation.start("south")
    command = [program("hica-server"), "run", str(federation.folder.root), "--tell", "600"]
    variables = environment() | {"HICA_TEST_FEDERATION": federation.mark}
    federation.processes[COORDINATOR] = started(command, federation.log(COORDINATOR), variables)
    assert federation.wait_for_exit("south") == 0 and is_over(federation, "south")
    assert federation.finish()["rounds"][-1]["participants"] == ["south"]
    for name in federation.names:
        assert read_result(federation.site_file(name))["federated"] is not None
        log = verify(federation.site(name).audit_log)
        assert [entry["decision"] for entry in log if entry["kind"] == RESULT.kind] == ["sent"]


def test_a_coordinator_that_dies_while_it_tells_goes_on_with_who_is_left(make_federation):
    federation = make_federation("federation.quorum=1", SHORT_DEADLINE)
    federation.start_all()
    federation.hold("south", 2)
    federation.kill("south")
    federation.release()
    assert federation.wait_for_exit("north") == 0 and is_over(federation, "north")
    federation.kill(COORDINATOR)  # it waits for the other
    federation.start("south")
    federation.start(COORDINATOR)
    federation.finish()
    assert federation.wait_for_exit("south") == 0 and is_over(federation, "south")
