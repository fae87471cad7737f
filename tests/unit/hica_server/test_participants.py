import logging
from dataclasses import replace

import pytest

from hica.errors import FederationError
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.evaluation import EVALUATION
from hica.steps.step import Step
from hica.wire.messages import Kind
from hica_server.exchange import Limits, Outcome
from hica_server.participants import ASK_AGAIN, Participants, with_absent


class Lobby:
    """Participants, the grid of their nodes, and what was noted of every exchange.

    Attributes:
        said: Site → what it said of itself.
    """

    def __init__(self, grid, study, roster=None, said=None):
        self.grid, self.study = grid, study
        self.said = {} if said is None else said
        self.noted = []
        self.participants = Participants(
            grid, study, self.said, roster, lambda *told: self.noted.append(told)
        )

    def meet(self):
        self.participants.meet("good")
        return self

    def able(self, step: Step, at_least: int = 1):
        """Nodes that can be asked, and sites that should be."""
        limits = Limits.of(self.study, at_least)
        return self.participants.able(step.kind, step.role, limits)

    @property
    def last(self) -> Outcome:
        return self.noted[-1][2]


class Roster:
    """Enrolled sites, each on the node of a grid with its number in the list."""

    def __init__(self, *sites):
        self.sites = {site.name: node for node, site in enumerate(sites, start=1)}

    def __call__(self):
        return dict(self.sites)

    def away(self, name):
        self.sites[name] = None

    def back(self, name, node):
        self.sites[name] = node


@pytest.fixture
def lobby(make_grid, make_study):
    """Of these sites, before they are met."""

    def lobby(*sites, overrides=(), **more):
        return Lobby(make_grid(dict(enumerate(sites, start=1))), make_study(*overrides), **more)

    return lobby


@pytest.fixture
def enrolled(lobby):
    """Of these enrolled sites, before they are met; and their roster."""

    def enrolled(*sites, **more):
        roster = Roster(*sites)
        return lobby(*sites, roster=roster, **more), roster

    return enrolled


def spoil(**details):
    """A change of a reply: these details, None takes one away."""

    def change(reply):
        merged = {**reply.details, **details}
        kept = {key: value for key, value in merged.items() if value is not None}
        return replace(reply, details=kept)

    return change


# --- Meeting the sites ---------------------------------------------------------------------------


def test_sites_are_met_by_name_and_what_they_tell_is_kept(lobby, make_site):
    met = lobby(make_site("west", labelled=3), make_site("east")).meet()
    assert met.said["west"]["labelled"] == 3
    [(stage, round_, outcome)] = met.noted
    assert (stage, round_, list(outcome.replies)) == ("capabilities", 0, ["east", "west"])
    assert outcome.bytes_up > 0
    assert met.able(ALIGNMENT) == ({1: "west", 2: "east"}, ["east", "west"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tower": "evil" * 10}, "another image tower (evilevilevil, expected good)"),
        ({"tower": None}, "another image tower (None"),
        ({"labelled": None}, "details: labelled: Field required"),
        ({"test": "many"}, "details: test: Input should be a valid integer"),
        ({"test": True}, "details: test: Input should be a valid integer"),
        ({"classes": []}, "details: classes: Input should be a valid dictionary"),
        ({"device": None}, "details: device: Field required"),
        ({"notes": None}, "details: notes: Field required"),
    ],
)
def test_a_site_that_cannot_take_part_is_refused_and_the_reason_recorded(
    lobby, make_site, change, words
):
    sites = [make_site(name) for name in ("a", "b", "c")]
    sites[1].changes[Kind.CAPABILITIES] = spoil(**change)
    met = lobby(*sites).meet()
    assert list(met.said) == ["a", "c"]
    assert words in met.last.refused["node 2"]


def test_too_few_sites_stop_the_run_with_their_reasons(lobby, make_site):
    sites = [make_site(name) for name in "ab"]
    sites[1].changes[Kind.CAPABILITIES] = spoil(tower="other")
    with pytest.raises(FederationError, match=r"1 of 2 sites.*node 2: loaded another image tower"):
        lobby(*sites).meet()


def test_what_a_site_notes_is_logged_under_its_name(lobby, make_site, caplog):
    site = make_site("a")
    site.changes[Kind.CAPABILITIES] = spoil(notes=["learns from all there are"])
    with caplog.at_level(logging.WARNING, logger="hica.server"):
        lobby(site, make_site("b")).meet()
    assert "a: learns from all there are" in caplog.text


# --- Who is asked --------------------------------------------------------------------------------


def test_only_sites_with_images_of_the_role_are_asked(lobby, make_site):
    met = lobby(
        make_site("a", labelled=0, test=0),
        make_site("b", unlabelled=0),
        make_site("c", labelled=2, unlabelled=2, test=6),
    ).meet()
    assert met.able(CENTRE) == ({1: "a", 3: "c"}, ["a", "c"])
    assert met.able(ALIGNMENT) == ({2: "b", 3: "c"}, ["b", "c"])
    assert met.able(EVALUATION) == ({2: "b", 3: "c"}, ["b", "c"])


def test_too_few_labelled_sites_for_the_quorum_stop_the_run_before_anyone_is_asked(
    lobby, make_site
):
    sites = [make_site("a"), make_site("b", labelled=0), make_site("c", labelled=0)]
    met = lobby(*sites).meet()
    words = r"train\.align: 1 site\(s\) have labelled images, needed are 2"
    with pytest.raises(FederationError, match=rf"{words} .*enrol more sites or lower the quorum"):
        met.able(ALIGNMENT)
    assert sites[0].asked() == [Kind.CAPABILITIES]


def test_a_rule_or_a_sum_that_needs_more_sites_than_the_quorum_raises_it(lobby, make_site):
    sites = [make_site("a"), make_site("b")]
    krum = ["federation.aggregation=krum", "federation.quorum=1"]
    with pytest.raises(FederationError, match=r"needed are 3 \(federation\.quorum = 1, .*'krum'\)"):
        lobby(*sites, overrides=krum).meet().able(ALIGNMENT, at_least=3)
    hidden = ["privacy.secure_aggregation=true", "federation.quorum=1"]
    words = r"needed are 3 \(federation\.quorum = 1, .*privacy\.secure_aggregation = true\)"
    with pytest.raises(FederationError, match=words):
        lobby(*sites, overrides=hidden).meet().able(ALIGNMENT, at_least=3)


# --- Enrolled sites that come and go -------------------------------------------------------------


def test_a_node_that_answers_under_another_name_than_it_is_enrolled_is_refused_by_that_name(
    enrolled, make_site
):
    met, roster = enrolled(make_site("a"), make_site("b"), make_site("c"))
    met.grid.answers[3] = make_site("a")
    met.meet()
    assert list(met.said) == ["a", "b"]
    assert met.last.refused == {"c": "answers as 'a'"}
    assert roster()["c"] == 3


def test_an_enrolled_site_that_is_not_connected_is_missing_at_the_start(enrolled, make_site):
    met, roster = enrolled(make_site("a"), make_site("b"), make_site("c"))
    roster.away("c")
    met.meet()
    assert met.last.missing == ["c"]


def test_a_site_that_may_be_away_is_not_missing(enrolled, make_site):
    met, roster = enrolled(make_site("a"), make_site("b"), make_site("c"))
    roster.away("b")
    roster.away("c")
    met.participants.meet("good", quorum=0, gone=["b"])
    assert met.last.missing == ["c"]


def test_a_site_that_connects_later_is_asked_once_and_takes_part(enrolled, make_site):
    late = make_site("c")
    met, roster = enrolled(make_site("a"), make_site("b"), late)
    roster.away("c")
    met.meet()
    assert met.able(ALIGNMENT)[0] == {1: "a", 2: "b"}
    assert late.requests == []
    roster.back("c", 3)
    for _ in range(2):
        assert met.able(ALIGNMENT) == ({1: "a", 2: "b", 3: "c"}, ["a", "b", "c"])
    assert late.asked() == [Kind.CAPABILITIES]
    assert [(stage, list(outcome.replies)) for stage, _, outcome in met.noted] == [
        ("capabilities", ["a", "b"]),
        ("capabilities", ["c"]),
    ]


def test_a_site_of_an_earlier_start_that_is_gone_should_still_be_asked(enrolled, make_site):
    sites = [make_site(name) for name in "abc"]
    before, _ = enrolled(*sites)
    met, roster = enrolled(*sites, said=before.meet().said)
    roster.away("c")
    assert met.meet().able(ALIGNMENT) == ({1: "a", 2: "b"}, ["a", "b", "c"])


def test_a_revoked_site_is_asked_no_more_and_not_missed(enrolled, make_site):
    met, roster = enrolled(*map(make_site, "abc"))
    met.meet()
    del roster.sites["c"]
    assert met.able(ALIGNMENT) == ({1: "a", 2: "b"}, ["a", "b"])


def test_a_site_with_a_new_key_is_asked_at_its_new_node(enrolled, make_site):
    met, roster = enrolled(make_site("a"), make_site("b"))
    met.meet()
    met.grid.answers[7] = met.grid.answers.pop(2)
    roster.back("b", 7)
    assert met.able(ALIGNMENT) == ({1: "a", 7: "b"}, ["a", "b"])


def test_a_site_that_could_not_join_is_asked_again_after_it_was_away_or_after_a_while(
    enrolled, make_site, monkeypatch
):
    clock = [0.0]
    monkeypatch.setattr("hica_server.participants.time.monotonic", lambda: clock[0])
    wrong = make_site("c")
    wrong.changes[Kind.CAPABILITIES] = spoil(tower="other")
    met, roster = enrolled(make_site("a"), make_site("b"), wrong)
    met.meet().able(ALIGNMENT)
    assert wrong.asked() == [Kind.CAPABILITIES]
    roster.away("c")
    met.able(ALIGNMENT)
    roster.back("c", 3)
    met.able(ALIGNMENT)
    assert wrong.asked() == [Kind.CAPABILITIES] * 2
    clock[0] = ASK_AGAIN + 1
    wrong.changes = {}
    assert met.able(ALIGNMENT)[1] == ["a", "b", "c"]


def test_the_others_do_not_wait_a_whole_round_for_a_newcomer(enrolled, make_site):
    overrides = ["federation.gather=3", "federation.deadline=60"]
    met, roster = enrolled(make_site("a"), make_site("b"), overrides=overrides)
    met.grid.answers[3] = lambda message: None
    met.meet()
    roster.back("c", 3)
    assert met.able(ALIGNMENT) == ({1: "a", 2: "b"}, ["a", "b"])
    assert met.grid.deadlines == [60.0, 3.0]
    assert met.last.missing == ["c"]


def test_without_a_roster_nobody_joins_later(lobby, make_site):
    met = lobby(make_site("a"), make_site("b")).meet()
    late = make_site("c")
    met.grid.answers[3] = late
    assert met.able(ALIGNMENT)[1] == ["a", "b"]
    assert late.requests == []


def test_who_has_neither_answered_nor_been_refused_is_missing():
    outcome = Outcome(replies=dict.fromkeys("a"), refused={"b": "disk is full"}, missing=["c"])
    assert with_absent(outcome, ["e", "d", "c", "b", "a"]) == ["c", "d", "e"]
