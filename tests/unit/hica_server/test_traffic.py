import pytest

from hica_server.admission import RefusedError
from hica_server.asked import note_asked
from hica_server.traffic import Traffic

UPDATE = 2_000_000_000
"""Bytes: more than is let in beside."""


@pytest.fixture
def asked(tmp_path):
    return tmp_path / "asked.json"


def refused(traffic, size, site="a"):
    with pytest.raises(RefusedError, match=r"limits\.unasked_bytes") as error:
        traffic.take(site, size)
    assert error.value.status == 413


def test_who_was_asked_for_nothing_may_send_a_little(asked):
    traffic = Traffic(asked, 100)
    traffic.take("a", 60)
    traffic.take("a", 40)
    refused(traffic, 1)
    traffic.take("b", 100)


def test_what_was_asked_for_may_be_sent_however_much_it_is(asked):
    traffic = Traffic(asked, 100)
    for _ in range(50):
        note_asked(asked, {"a": UPDATE})
        traffic.take("a", UPDATE)
    traffic.take("a", 100)
    refused(traffic, 1)


def test_what_was_given_back_may_be_sent_again(asked):
    traffic = Traffic(asked, 100)
    traffic.take("a", 100)
    traffic.give_back("a", 30)
    traffic.take("a", 30)
    refused(traffic, 1)


def test_after_a_restart_an_honest_site_can_send_what_it_owes(asked):
    """Its last answer, and one before that is late, whatever was asked for in between."""
    for size in (UPDATE, UPDATE, 10, 10):
        note_asked(asked, {"a": size})
    traffic = Traffic(asked, 100)
    traffic.take("a", UPDATE)
    traffic.take("a", UPDATE)


def test_after_a_restart_nobody_may_send_all_of_the_study_again(asked):
    for _ in range(50):
        note_asked(asked, {"a": UPDATE})
    traffic = Traffic(asked, 100)
    traffic.take("a", 2 * UPDATE + 100)
    refused(traffic, 1)


def test_a_file_that_is_lost_takes_nothing_back(asked):
    note_asked(asked, {"a": 50})
    traffic = Traffic(asked, 100)
    traffic.take("a", 150)
    asked.unlink()
    refused(traffic, 1)
