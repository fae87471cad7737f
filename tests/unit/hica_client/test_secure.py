"""Real ClientApps in secure sums with a coordinator that follows the protocol, or does not."""

import gc
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message
from tests.unit.hica_client.secure_federation import DIM, NUMBER, SITES, Federation

from hica.deployment.keys import read_public
from hica.secure_sum.collector import LiarError
from hica.secure_sum.forms import values_of
from hica.secure_sum.sharing import seal
from hica.secure_sum.wire import SignedKeys, Unmasking
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN
from hica.steps.evaluation import EVALUATION
from hica.steps.prototypes import PROTOTYPES
from hica.wire.messages import Kind, Request, SiteError
from hica.wire.records import decode_reply, encode_request
from hica_client import secure
from hica_client.app import app, forget_sessions, session_for
from hica_client.site import load_site
from hica_simulations.grid import InProcessGrid

SUMS = {"sums": ((2, DIM), "float64"), "counts": ((2,), "float64")}


@pytest.fixture
def federation(draw_site, toy_study):
    def make(*overrides):
        files = [draw_site(name) for name in SITES]
        return Federation(files, toy_study("privacy.secure_aggregation=true", *overrides))

    return make


@pytest.fixture
def refused():
    return lambda words: pytest.raises(SiteError, match=words)


def plain(federation, site, step, spec, settings=None):
    """The same site's answer in a study without secure aggregation."""
    table = federation.study.privacy.model_copy(update={"secure_aggregation": False})
    study = federation.study.model_copy(update={"privacy": table})
    request = Request(step.kind, study, 0, settings or {}, federation.payload)
    with InProcessGrid(app, [{"site": str(federation.files[site])}], {}) as grid:
        [answer] = grid.send_and_receive([Message(encode_request(request), 1, step.kind)])
    return decode_reply(answer.content, step.kind, 0, spec)


def test_the_sum_is_that_of_the_plain_answers_and_no_answer_tells_its_own(federation):
    sites = federation()
    sites.begin()
    replies = sites.collect(CENTRE, SUMS)
    values = sites.finish(CENTRE)
    answers = [plain(sites, site, CENTRE, SUMS) for site in SITES]
    for name in SUMS:
        expected = np.sum([answer.arrays[name] for answer in answers], axis=0)
        np.testing.assert_allclose(values[name], expected, rtol=0, atol=1e-8)
    assert values["examples"] == sum(answer.examples for answer in answers) == 32
    for reply in replies.values():
        assert (reply.examples, reply.details) == (0, {})


def test_of_updates_the_weighted_changes_are_summed_and_the_loss_is_hidden(federation):
    sites = federation()
    spec = sites.spec()
    rate = {"rate": 1.0}
    sites.gone = {"west"}
    sites.begin()
    replies = sites.collect(ALIGNMENT, spec, rate)
    values = sites.finish(ALIGNMENT)
    answers = [plain(sites, site, ALIGNMENT, spec, rate) for site in sites.here]
    for name in spec:
        expected = sum(answer.arrays[name] - sites.payload[name] for answer in answers)
        np.testing.assert_allclose(values[name], expected, rtol=0, atol=1e-6)
    losses = sum(answer.details["loss"] * answer.examples for answer in answers)
    assert values["loss"] == pytest.approx(losses)
    assert all(reply.details == {} for reply in replies.values())


def test_without_a_secure_sum_nothing_leaves(federation, refused):
    sites = federation()
    words = "train.moments was asked without it: nothing leaves"
    for settings in ({}, {"sum": None}, {"sum": []}):
        with refused(words):
            content = sites.ask("north", CENTRE.kind, settings, 0, sites.payload)
            decode_reply(content, CENTRE.kind, 0, SUMS)


def test_metrics_leave_as_they_are(federation):
    sites = federation()
    content = sites.ask("north", EVALUATION.kind, {}, 0, sites.payload)
    assert decode_reply(content, EVALUATION.kind, 0, {}).details["n"] == 8


def test_a_study_without_it_has_no_sessions(federation, toy_study, refused):
    sites = federation()
    sites.study = toy_study()
    with refused("never asks for query.keys"):
        sites.told("north", Kind.KEYS, {"session": NUMBER})


def test_pseudo_labels_are_told_without_a_sum_and_answered_with_nothing(federation):
    sites = federation()
    arrays = {**sites.payload, "centroids": np.eye(3, DIM)}
    content = sites.ask("north", ASSIGN.kind, {"step": "assign"}, 0, arrays)
    reply = decode_reply(content, ASSIGN.kind, 0, {})
    assert (reply.examples, reply.details) == (0, {})
    file = sites.files["north"]
    session = session_for(file, load_site(file), Request(ALIGNMENT.kind, sites.study))
    assert session.kept("pseudo_labels")["labels"].shape == (8,)


@pytest.mark.parametrize("number", [None, "", "AB" * 16, 7, "ab" * 17])
def test_the_number_of_a_session_is_read_strictly(federation, refused, number):
    with refused("session"):
        federation().told("north", Kind.KEYS, {"session": number})


def test_a_site_that_was_restarted_has_dropped_out_and_takes_part_in_the_next(federation, refused):
    sites = federation()
    sites.begin()
    forget_sessions()
    gc.collect()
    with refused("takes no part in that session of a secure sum: it was restarted"):
        sites.masked("north", CENTRE, SUMS)
    sites.begin("cd" * 16)
    sites.collect(CENTRE, SUMS)
    sites.finish(CENTRE)


def test_a_new_session_ends_the_one_before_it(federation, refused):
    sites = federation()
    sites.begin()
    sites.told("north", Kind.KEYS, {"session": "cd" * 16})
    with refused("takes no part in that session"):
        sites.masked("north", CENTRE, SUMS)


def test_no_step_is_taken_twice(federation, refused):
    sites = federation()
    sites.begin()
    sites.collect(CENTRE, SUMS)
    with refused("out of order"):
        sites.masked("north", PROTOTYPES, {"sums": ((2, DIM), "float64")})
    sites.finish(CENTRE)
    with refused("takes no part in that session"):
        sites.told("north", Kind.UNMASK, {"session": NUMBER, "survivors": [], "signatures": {}})


def test_a_coordinator_that_swaps_keys_is_refused(federation, refused):
    sites = federation()
    number = {"session": NUMBER}
    offered = [SignedKeys.from_json(sites.told(s, Kind.KEYS, number)) for s in SITES]
    for each in ("share_key", "mask_key"):
        swapped = [
            replace(k, **{each: bytes(range(32))}) if k.site == "west" else k for k in offered
        ]
        for site in ("east", "north", "south"):
            sites.told(site, Kind.KEYS, number)
        fresh = [
            k if k.site == "west" else SignedKeys.from_json(sites.told(k.site, Kind.KEYS, number))
            for k in swapped
        ]
        for site in ("east", "north", "south"):
            with refused("the keys of 'west' are not signed by its registered key"):
                sites.told(site, Kind.SHARES, {**number, "keys": [k.to_json() for k in fresh]})


@pytest.mark.parametrize("listed", [None, {}, [3], ["x"], [[]]])
def test_lists_of_keys_are_read_strictly(federation, refused, listed):
    sites = federation()
    sites.told("north", Kind.KEYS, {"session": NUMBER})
    with refused("keys"):
        sites.told("north", Kind.SHARES, {"session": NUMBER, "keys": listed})


@pytest.mark.parametrize("promises", [None, [], {"west": 3}, {"west": {"shares": []}}])
def test_promises_are_read_strictly(federation, refused, promises):
    sites = federation()
    sites.begin()
    sites.part["promises"] = promises
    with refused("promise"):
        sites.masked("north", ALIGNMENT, sites.spec(), {"rate": 1.0})


def test_who_has_dealt_wrong_shares_is_shown_to_the_coordinator(federation):
    sites = federation()
    sites.begin()
    file = sites.files["west"]
    session = session_for(file, load_site(file), Request(ALIGNMENT.kind, sites.study))
    party = secure._participation(session).party
    key, envelope = party._envelope_key("west", "north"), party._envelope("west", "north")
    wrong = seal(bytes(32), key, envelope)
    sites.collector._deals["west"].sealed["north"] = wrong
    sites.part["sealed"]["north"]["west"] = wrong.hex()
    with pytest.raises(SiteError, match="the shares of 'west' are not those it has com") as failed:
        sites.masked("north", ALIGNMENT, sites.spec(), {"rate": 1.0})
    assert failed.value.accuses == {"dealer": "west", "key": key.hex()}
    with pytest.raises(LiarError, match="'west' has dealt wrong shares"):
        sites.collector.check_accusation("north", failed.value.accuses)


@pytest.mark.parametrize("sealed", [None, [], {}, {"north": 3}, {"north": {"west": "zz"}}])
def test_envelopes_are_read_strictly(federation, refused, sealed):
    sites = federation()
    sites.begin()
    sites.part["sealed"] = sealed
    with refused("sealed"):
        sites.masked("north", CENTRE, SUMS)


def test_a_site_without_the_list_of_keys_says_how_to_get_it(federation, refused):
    sites = federation()
    (sites.files["north"].parent / "kit" / "keys.json").unlink()
    with refused(r"keys\.json: missing, and secure aggregation needs every site's public key"):
        sites.told("north", Kind.KEYS, {"session": NUMBER})


def test_a_site_that_the_list_knows_by_another_key_says_so(federation, refused):
    sites = federation()
    roster = {
        name: read_public(file.parent / "keys" / "site.pub") for name, file in sites.files.items()
    }
    west = roster.pop("west")
    sites.hand_out({**roster, "north": west}, "north")
    with refused("'north' is not among the registered keys of the start kit"):
        sites.told("north", Kind.KEYS, {"session": NUMBER})


# --- The same question in another group ----------------------------------------------------------


def test_the_same_question_is_answered_again_in_the_same_group_only(federation, refused):
    sites = federation()
    for number in ("01" * 16, "02" * 16):
        sites.begin(number)
        sites.collect(CENTRE, SUMS)
        sites.finish(CENTRE)
    sites.gone = {"west"}
    sites.begin("03" * 16)
    sites.collect(CENTRE, SUMS)
    words = r"the same question was answered together with east, north, south, west, now the sum "
    with refused(words) as failed:
        sites.finish(CENTRE)
    assert failed.value.accuses == {"group": "east,north,south,west"}  # for a coordinator's resume
    forget_sessions()  # every site is started again, and is asked in another round
    sites.begin("04" * 16)
    sites.collect(CENTRE, SUMS, round_=1)
    listed = {"session": sites.number, "survivors": sites.collector.survivors}
    with refused(words):
        sites.told("north", Kind.SURVIVORS, listed, 1)
    sites.begin("05" * 16)  # another question is another matter
    sites.collect(CENTRE, SUMS, round_=2, centre=np.full((2, DIM), 2.0, np.float32))
    listed = {"session": sites.number, "survivors": sites.collector.survivors}
    assert sites.told("north", Kind.SURVIVORS, listed, 2)["signature"]


def test_a_question_whose_sum_was_never_uncovered_may_be_answered_in_another_group(federation):
    sites = federation()
    sites.begin("01" * 16)
    sites.collect(CENTRE, SUMS)
    sites.gone = {"west"}
    sites.begin("02" * 16)
    sites.collect(CENTRE, SUMS)
    sites.finish(CENTRE)


def test_sites_that_are_asked_different_questions_uncover_nothing(federation, refused):
    """All but one with features made alike: were their changes known, so would be the one's."""
    sites = federation()
    spec = sites.spec()
    sites.begin()
    for site in SITES:
        centre = np.full((2, DIM), 0.0 if site == "west" else 4096.0, np.float32)
        reply = sites.masked(site, ALIGNMENT, spec, {"rate": 1.0}, centre=centre)
        sites.collector.add(site, reply.arrays)
    listed = {"session": sites.number, "survivors": sites.collector.survivors}
    listed["signatures"] = {s: sites.told(s, Kind.SURVIVORS, listed)["signature"] for s in SITES}
    with refused("1 sites have signed what this site has"):
        sites.told("west", Kind.UNMASK, listed)
    others = ("east", "north", "south")
    shares = {s: Unmasking.from_json(sites.told(s, Kind.UNMASK, listed)) for s in others}
    totals = values_of(sites.collector.total(shares), ALIGNMENT, sites.study, len(SITES))
    changes = plain(sites, "west", ALIGNMENT, spec, {"rate": 1.0})
    for name in spec:  # nothing like west's own, as its masks with the others do not cancel
        change = changes.arrays[name] - sites.payload[name]
        assert np.abs(totals[name] - change).max() > 0.1
    assert abs(totals["examples"][0] - 32) > 1
