"""kill -9 of each process in turn: the run goes on, loses no round and counts none twice.

A runner is stopped beforehand, which holds the round open: whatever dies, dies in the middle of it.
"""

import pytest

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]

COORDINATOR = "coordinator"


@pytest.mark.parametrize("service", ["superlink", "superexec", "gateway", "serverapp"])
def test_kill_9_of_a_process_of_the_coordinator(federation, assert_as_if_undisturbed, service):
    federation.start_all()
    federation.hold("south", 1)
    with federation.recovery(f"kill -9 of the {service}"):
        federation.kill_service(COORDINATOR, service)
        federation.release()
    assert_as_if_undisturbed(federation, federation.finish())


@pytest.mark.parametrize("service", ["supernode", "runner"])
def test_kill_9_of_a_process_of_a_hospital(federation, assert_as_if_undisturbed, service):
    federation.start_all()
    federation.hold("south", 1)
    with federation.recovery(f"kill -9 of a site's {service}"):
        federation.kill_service("south", service)
        federation.release()
    assert_as_if_undisturbed(federation, federation.finish())


@pytest.mark.parametrize("name", [COORDINATOR, "south"])
def test_kill_9_of_a_whole_side_which_is_started_again_at_once(
    federation, assert_as_if_undisturbed, name
):
    federation.start_all()
    federation.hold("south", 1)
    with federation.recovery(f"kill -9 of the whole client or server: {name}, started again"):
        federation.kill(name)
        federation.start(name)
        federation.release()
    assert_as_if_undisturbed(federation, federation.finish())
