import numpy as np
import pytest
from flwr.app import Array, Message

from hica.errors import FederationError, MessageError
from hica.steps.alignment import ALIGNMENT
from hica.wire.messages import Kind, Reply, Request
from hica.wire.records import encode_reply, payload_bytes
from hica_server.exchange import GO_ON, Limits, QuorumError, exchange

SPEC = {"weight": ((2,), "float32")}
KIND = ALIGNMENT.kind
LIMITS = Limits(quorum=1, deadline=5.0, retries=0)


def reply(site, round_=3, values=(1.0, 2.0), dtype=np.float32):
    arrays = {"weight": np.asarray(values, dtype)}
    return encode_reply(Reply(KIND, site, round_, 10, {}, arrays))


def always(answer):
    return lambda message: answer


def in_turn(*answers):
    """A different answer to every question."""
    left = list(answers)
    return lambda message: left.pop(0)


@pytest.fixture
def ask(make_grid, make_study):
    """Ask the nodes of a script; returns the outcome and the grid."""

    def ask(answers, names=None, limits=LIMITS, check=None, away=None):
        grid = make_grid(answers)
        grid.away = away or {}
        nodes = names or {node: f"site{node}" for node in answers}
        request = Request(KIND, make_study(), round=3)
        return exchange(grid, nodes, request, SPEC, limits, check), grid

    return ask


def test_usable_replies_come_back_in_the_order_of_names_whatever_the_order_of_nodes(ask):
    names = {1: "west", 2: "east", 3: "north"}
    outcome, grid = ask({n: always(reply(name)) for n, name in names.items()}, names)
    assert list(outcome.replies) == ["east", "north", "west"]
    assert outcome.nodes == {"west": 1, "east": 2, "north": 3}
    assert outcome.replies["east"].arrays["weight"].tolist() == [1.0, 2.0]
    assert (outcome.refused, outcome.missing) == ({}, [])
    assert grid.deadlines == [5.0]
    assert {message.metadata.message_type for message in grid.sent} == {"train.align"}


def test_an_answer_may_name_the_site_where_it_is_not_known_yet(ask):
    outcome, _ = ask({1: always(reply("a")), 2: always(reply("b"))}, {1: "", 2: ""})
    assert outcome.nodes == {"a": 1, "b": 2}


def test_the_failed_and_the_late_are_named_and_left_out(ask):
    outcome, grid = ask({1: always("disk is full"), 2: always(None), 3: always(reply("site3"))})
    assert list(outcome.replies) == ["site3"]
    assert outcome.refused == {"site1": "failed at the site: disk is full"}
    assert outcome.missing == ["site2"]
    assert grid.asked == [[1, 2, 3]]  # the quorum was there: nobody is asked again


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (reply("site1", values=(1.0, np.nan)), "'weight' holds NaN"),
        (reply("site1", values=(1.0, 2.0, 3.0)), "shape (3,), expected (2,)"),
        (reply("site1", dtype=np.float64), "type float64"),
        (reply("site1", round_=2), "answers round 3, asked was round 4"),
        (reply("site2"), "answers as 'site2'"),
    ],
)
def test_a_bad_answer_is_refused_by_name_and_the_round_goes_on(ask, bad, words):
    outcome, _ = ask({1: always(bad), 2: always(reply("site2"))})
    assert list(outcome.replies) == ["site2"]
    assert list(outcome.refused) == ["site1"]
    assert words in outcome.refused["site1"]


def test_of_what_a_site_says_only_as_much_is_kept_as_a_report_can_hold(ask, caplog):
    words = "disk is full\n2026 INFO all is well\0\ud800" + "x" * 3 * 10**7
    outcome, _ = ask({1: always(words), 2: always(reply("site2"))})
    kept = outcome.refused["site1"]
    assert kept.startswith("failed at the site: disk is full 2026 INFO all is well  xxx")
    assert len(kept) == 1000
    assert kept in caplog.text and len(caplog.text) < 2000


def test_a_check_may_refuse_what_is_well_formed(ask):
    def check(reply):
        if reply.site == "site1":
            raise MessageError("too far")

    outcome, _ = ask({1: always(reply("site1")), 2: always(reply("site2"))}, check=check)
    assert list(outcome.replies) == ["site2"]
    assert outcome.refused == {"site1": "too far"}


def test_of_two_nodes_with_one_name_the_second_is_refused(ask):
    outcome, _ = ask({1: always(reply("a")), 2: always(reply("a"))}, {1: "", 2: ""})
    assert outcome.nodes == {"a": 1}
    assert "two nodes answer as 'a'" in outcome.refused["node 2"]


def test_an_answer_of_a_node_that_was_not_asked_is_ignored(make_grid, make_study):
    grid = make_grid({1: always(reply("site1")), 2: always(reply("site2"))})
    stranger = Message(reply("site1").copy(), 2, "train.align")
    grid.strangers = [Message(reply("site1", values=(9, 9)), reply_to=stranger)]
    request = Request(KIND, make_study(), round=3)
    outcome = exchange(grid, {1: "site1"}, request, SPEC, LIMITS)
    assert outcome.replies["site1"].arrays["weight"].tolist() == [1.0, 2.0]
    assert (outcome.nodes, outcome.refused) == ({"site1": 1}, {})


def test_below_quorum_only_those_are_asked_again_who_did_not_answer(ask):
    answers = {
        1: in_turn(reply("site1")),
        2: in_turn("out of memory", reply("site2")),
        3: in_turn(None, reply("site3")),
    }
    outcome, grid = ask(answers, limits=Limits(quorum=3, deadline=5.0, retries=2))
    assert grid.asked == [[1, 2, 3], [2, 3]]
    assert list(outcome.replies) == ["site1", "site2", "site3"]
    assert (outcome.refused, outcome.missing) == ({}, [])


def test_a_node_whose_site_was_not_known_is_not_asked_again_after_it_answered(ask):
    answers = {1: in_turn(reply("a")), 2: in_turn("starting", reply("b"))}
    outcome, grid = ask(answers, {1: "", 2: ""}, Limits(quorum=2, deadline=5.0, retries=1))
    assert grid.asked == [[1, 2], [2]]
    assert (outcome.nodes, outcome.refused) == ({"a": 1, "b": 2}, {})


def test_below_quorum_after_every_retry_the_error_names_who_and_why(ask):
    answers = {1: always(reply("site1")), 2: always("disk is full"), 3: always(None)}
    with pytest.raises(QuorumError) as error:
        ask(answers, limits=Limits(quorum=2, deadline=5.0, retries=2))
    message = str(error.value)
    assert message == error.value.why + GO_ON
    assert "train.align round 4: 1 of 3 sites" in message
    assert "federation.quorum is 2" in message
    assert "site2: failed at the site: disk is full" in message
    assert "site3: no answer within 5 s" in message
    assert "run the same command again" in message


def test_what_the_quorum_is_of_is_said(ask):
    limits = Limits(quorum=2, deadline=5.0, retries=0, source="the threshold of a sum")
    with pytest.raises(QuorumError, match="the threshold of a sum is 2"):
        ask({1: always(reply("site1"))}, limits=limits)


@pytest.mark.parametrize(("at_least", "quorum"), [(1, 2), (3, 3)])
def test_the_limits_of_a_study_are_its_own_but_for_a_rule_that_needs_more_sites(
    make_study, at_least, quorum
):
    study = make_study("federation.quorum=2", "federation.deadline=7", "federation.retries=4")
    assert Limits.of(study, at_least) == Limits(quorum, 7.0, 4, "federation.quorum")


def test_a_grid_without_nodes_is_below_every_quorum(make_grid, make_study):
    request = Request(Kind.CAPABILITIES, make_study())
    with pytest.raises(FederationError, match="no further site is connected"):
        exchange(make_grid({}), {}, request, {}, LIMITS)


def test_bytes_are_counted_over_all_tries_and_of_refused_answers_too(ask):
    good, bad = reply("site1"), reply("site2", values=(1.0, np.nan))
    answers = {1: in_turn(good), 2: in_turn(bad, reply("site2"))}
    outcome, grid = ask(answers, limits=Limits(quorum=2, deadline=5.0, retries=1))
    request = payload_bytes(grid.sent[0].content)
    assert outcome.bytes_down == 3 * request
    assert outcome.bytes_up == sum(map(payload_bytes, (good, bad, reply("site2"))))


def test_an_answer_with_other_arrays_than_asked_for_is_refused(ask):
    record = reply("site1")
    record.array_records["arrays"]["more"] = Array(np.zeros(1, np.float32))
    outcome, _ = ask({1: always(record), 2: always(reply("site2"))})
    assert "not asked for ['more']" in outcome.refused["site1"]


# --- Nodes that are not connected ----------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    """Looks at who is connected follow each other at once."""
    monkeypatch.setattr("hica_server.exchange.POLL_SECONDS", 0.0)


def test_who_is_not_connected_is_not_asked_and_costs_no_time_beyond_the_quorum(ask, make_grid):
    answers = {1: always(reply("site1")), 2: always(reply("site2")), 3: always(reply("site3"))}
    outcome, grid = ask(answers, away={3: 10**9})
    assert grid.asked == [[1, 2]]
    assert (list(outcome.replies), outcome.missing) == (["site1", "site2"], ["site3"])
    assert outcome.bytes_down == 2 * payload_bytes(grid.sent[0].content)


def test_below_quorum_the_missing_are_waited_for_and_then_asked(ask, impatient, caplog):
    answers = {1: always(reply("site1")), 2: always(reply("site2"))}
    outcome, grid = ask(answers, limits=Limits(quorum=2, deadline=60.0, retries=0), away={2: 3})
    assert grid.asked == [[1, 2]]
    assert outcome.missing == []
    assert "site2 not connected: waiting up to 60 s" in caplog.text
    assert caplog.text.count("not connected") == 1


def test_a_site_that_goes_in_the_middle_is_asked_again_when_it_is_back(
    make_grid, make_study, impatient
):
    def goes_then_answers(message):
        if len(grid.asked) == 1:
            grid.away = {2: 3}
            return None
        return reply("site2")

    grid = make_grid({1: always(reply("site1")), 2: goes_then_answers})
    request = Request(KIND, make_study(), round=3)
    limits = Limits(quorum=2, deadline=60.0, retries=1)
    outcome = exchange(grid, {1: "site1", 2: "site2"}, request, SPEC, limits)
    assert grid.asked == [[1, 2], [2]]
    assert outcome.missing == []


def test_nobody_is_waited_for_beyond_the_deadline(ask, impatient):
    answers = {1: always(reply("site1")), 2: always(reply("site2"))}
    with pytest.raises(FederationError, match="site2: no answer within 0 s"):
        ask(answers, limits=Limits(quorum=2, deadline=0.0, retries=1), away={2: 10**9})


def test_more_sites_than_there_are_are_not_waited_for(ask):
    with pytest.raises(FederationError, match="1 of 1 sites"):
        ask({1: always(reply("site1"))}, limits=Limits(quorum=2, deadline=3600.0, retries=0))
