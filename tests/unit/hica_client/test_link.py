import json
import logging

import pytest

from hica_client.link import ENDED, REVOKED, SILENT, UNKNOWN_KEY, Link, LinkState, read_link


@pytest.fixture
def path(tmp_path):
    return tmp_path / "service" / "node.json"


@pytest.fixture
def link(path, caplog):
    caplog.set_level(logging.INFO, "hica.client")
    return Link(path, "coordinator.example:8443")


def test_before_the_first_connection_nothing_is_known(link, path):
    assert (link.state.node, link.state.connected, link.state.trouble) == (None, False, "")
    assert read_link(path) == link.state


def test_the_node_is_kept_for_the_next_start_which_is_not_connected_yet(link, path):
    link.heard("INFO :      SuperNode ID: 3970110134496232879")
    assert read_link(path) == link.state
    assert link.state.node == 3970110134496232879
    assert link.state.connected
    again = Link(path, "coordinator.example:8443")
    assert again.state.node == 3970110134496232879
    assert not read_link(path).connected


def test_connected_is_said_once_and_again_after_an_outage(link, caplog):
    link.heard("INFO :      SuperNode ID: 7")
    link.heard("WARNING :   Connection attempt failed, retrying in 0.39 seconds")
    link.heard("WARNING :   Connection attempt failed, retrying in 1.02 seconds")
    assert (link.state.connected, link.state.trouble) == (False, SILENT)
    link.heard("INFO :      Connection successful after 3.90 seconds and 3 tries.")
    assert (link.state.connected, link.state.trouble) == (True, "")
    assert caplog.messages == [
        "coordinator.example:8443: connected as node 7",
        f"coordinator.example:8443: {SILENT}",
        "coordinator.example:8443: connected as node 7",
    ]


def test_a_silence_is_explained_once_and_not_written_over(link, caplog):
    link.heard("WARNING :   Connection attempt failed, retrying in 0.39 seconds")
    link.explained("coordinator.example:8443: the certificate there is not from the authority")
    link.heard("WARNING :   Connection attempt failed, retrying in 1.02 seconds")
    assert link.state.trouble == "the certificate there is not from the authority; trying on"
    assert len(caplog.messages) == 2
    link.heard("INFO :      SuperNode ID: 7")
    link.heard("WARNING :   Connection attempt failed, retrying in 0.39 seconds")
    assert link.state.trouble == SILENT


def test_an_answer_before_the_site_was_let_in_is_no_connection(link):
    link.heard("INFO :      Connection successful after 3.90 seconds and 3 tries.")
    assert not link.state.connected


def test_what_the_coordinator_asks_for_is_said(link, caplog):
    link.heard("INFO :      Receiving: train.align message (ID: 3f2a)")
    assert caplog.messages == ["coordinator.example:8443: asks for train.align"]


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("[code: 2004] Failed to activate SuperNode.", UNKNOWN_KEY),
        ("INFO :      SuperNode terminated gracefully.", REVOKED),
        ("Segmentation fault", ENDED),
    ],
)
def test_why_the_supernode_ended_is_said_every_time(link, path, caplog, line, trouble):
    for _ in range(2):
        link.heard(line)
        for number in range(100):
            link.heard(f"whatever else it prints, line {number}")
        link.ended(network="")
        assert (link.state.connected, read_link(path).trouble) == (False, trouble)
    assert caplog.messages == [f"coordinator.example:8443: {trouble}"] * 2


def test_a_reason_of_last_time_is_none_of_this_time(link):
    link.heard("[code: 2004] Failed to activate SuperNode.")
    link.ended(network="")
    link.ended(network="")
    assert link.state.trouble == ENDED


def test_what_is_wrong_with_the_network_comes_first(link, caplog):
    link.heard("INFO :      SuperNode terminated gracefully.")
    link.ended(network="coordinator.example:8443: the certificate has expired")
    assert caplog.messages == ["coordinator.example:8443: the certificate has expired"]


def test_an_end_from_here_is_no_trouble(link, path, caplog):
    link.heard("INFO :      SuperNode ID: 7")
    link.heard("INFO :      SuperNode terminated gracefully.")
    caplog.clear()
    link.closed()
    assert (read_link(path).connected, read_link(path).trouble) == (False, "")
    link.ended(network="")
    assert link.state.trouble == ENDED
    assert REVOKED not in caplog.text


def test_a_full_disk_costs_the_record_and_not_the_connection(link, path, caplog):
    path.unlink()
    path.mkdir()
    link.heard("INFO :      SuperNode ID: 7")
    assert link.state.connected
    assert "node.json: cannot be written" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", json.dumps({"other": 1})])
def test_a_record_that_cannot_be_read_is_as_good_as_none(path, text):
    path.parent.mkdir()
    path.write_text(text)
    assert read_link(path) == LinkState()
