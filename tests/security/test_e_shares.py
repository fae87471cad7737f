"""E, 16: who deals or gives back wrong shares is named."""

import re
from dataclasses import replace

import numpy as np
import pytest

from hica.errors import MessageError
from hica.secure_sum.group import SIGNING
from hica.secure_sum.sharing import seal
from hica.secure_sum.wire import Deal
from hica.steps.alignment import ALIGNMENT
from hica.wire.messages import Kind, failure


def weights(run):
    return run.learnt.shared


def wrong_shares(field):
    def change(reply):
        shares = dict.fromkeys(reply.details[field], "00" * 16)
        return replace(reply, details={**reply.details, field: shares})

    return change


@pytest.mark.parametrize("field", ["self_masks", "mask_keys"])
def test_16_a_wrong_share_is_refused_by_name_and_the_sum_is_made_of_the_others(secure_run, field):
    """A site gives back other shares than it was dealt: the sum was lost, and nobody was named."""
    runs = {}
    for lies in (False, True):
        run, sites = secure_run("abcde", "privacy.threshold=0.6")
        sites[0].silent = [ALIGNMENT.kind] if field == "mask_keys" else []
        if lies:
            sites[4].changes[Kind.UNMASK] = wrong_shares(field)
        runs[lies] = run.take(ALIGNMENT)
        assert len(sites[0].sessions) == 1
    told = runs[True].last
    assert "'s shares are" not in str(told) and list(told["refused"]) == ["e"]
    assert re.match(r"sends another share than '[abcd]' has dealt to it", told["refused"]["e"])
    assert told["participants"] == (list("bcde") if field == "mask_keys" else list("abcde"))
    for name, value in weights(runs[False]).items():  # to the bit: the integers are the same
        np.testing.assert_array_equal(weights(runs[True])[name], value)


@pytest.mark.parametrize("victims", ["a", "ab", "abce"])
def test_16_who_deals_wrong_shares_is_named_and_left_out(secure_run, victims):
    """A site deals shares that give nothing: each victim dropped out, and the liar stayed."""
    run, sites = secure_run("abcde")
    liar = sites[3]

    def spoil(reply):
        sealed = dict(reply.details["sealed"])
        for name in victims:
            key = liar.party._envelope_key("d", name)
            sealed[name] = seal(bytes(32), key, liar.party._envelope("d", name)).hex()
        return replace(reply, details={**reply.details, "sealed": sealed})

    liar.changes[Kind.SHARES] = spoil
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c", "e"]
    assert run.last["refused"] == {"d": "'d' has dealt wrong shares: it is left out of the sum"}
    assert len(sites[0].sessions) == 2
    alone = secure_run("abce")[0].take(ALIGNMENT)
    for name, value in weights(alone).items():
        np.testing.assert_array_equal(weights(run)[name], value)


def test_16_a_false_accusation_harms_only_who_makes_it(secure_run):
    """A site says of an honest one that it deals wrong shares."""
    run, sites = secure_run("abcde")

    def accuse(reply):
        lie = MessageError("")
        lie.proof = {"dealer": "d", "key": sites[0].party._envelope_key("d", "a").hex()}
        return failure(reply.kind, "a", reply.round, "d has dealt wrongly", lie)

    sites[0].changes[ALIGNMENT.kind] = accuse
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["b", "c", "d", "e"]
    assert list(run.last["refused"]) == ["a"]
    assert len(sites[1].sessions) == 1


def test_16_a_promise_that_its_dealer_has_not_signed_is_refused(secure_run):
    """Somebody between the sites exchanges what a dealer has committed to."""
    run, sites = secure_run("abcde")

    def exchange(reply):
        promise = {**reply.details["promise"], "commitment": "00" * 32}
        return replace(reply, details={**reply.details, "promise": promise})

    sites[3].changes[Kind.SHARES] = exchange
    run.take(ALIGNMENT)
    assert "what 'd' commits to is not signed by its registered key" in run.last["refused"]["d"]
    assert run.last["participants"] == ["a", "b", "c", "e"]


def test_16_shares_that_give_another_seed_than_was_committed_to_name_their_dealer(secure_run):
    """A dealer seals the shares that it commits to, but they are of another seed than it says."""
    from hica.secure_sum.group import promise_statement

    run, sites = secure_run("abcde")
    liar = sites[3]

    def commit_to_another(reply):
        deal = Deal.from_json(reply.details)
        told = (liar.party.group.transcript, "d", bytes(32), deal.promise.shares)
        signature = liar.key.sign(promise_statement(*told), SIGNING)
        promise = replace(deal.promise, commitment=bytes(32), signature=signature)
        return replace(reply, details=replace(deal, promise=promise).to_json())

    liar.changes[Kind.SHARES] = commit_to_another
    run.take(ALIGNMENT)
    assert run.last["refused"] == {"d": "'d' has dealt wrong shares: it is left out of the sum"}
    alone = secure_run("abce")[0].take(ALIGNMENT)
    for name, value in weights(alone).items():
        np.testing.assert_array_equal(weights(run)[name], value)
