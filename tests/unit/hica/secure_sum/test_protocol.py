"""Parties and collector together: the sum is right, and whoever cheats gets none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from hica.errors import MessageError
from hica.secure_sum.collector import Collector, LiarError
from hica.secure_sum.group import (
    SIGNING,
    Threshold,
    keys_statement,
    pair_purpose,
    promise_statement,
)
from hica.secure_sum.masks import add_mask
from hica.secure_sum.party import DealtWrongError, Party
from hica.secure_sum.quantise import restore
from hica.secure_sum.sharing import agreed, commitment, seal
from hica.secure_sum.wire import SignedKeys

from .conftest import KEYS, QUESTION, RANGES, SESSION, STUDY, new_key

# --- The sum -------------------------------------------------------------------------------------


def assert_sum(table, result):
    plain = table.plain()
    for name, expected in plain.items():
        assert np.abs(result[name] - expected).max() <= table.bound(name)
        assert np.abs(expected).max() > 1000 * table.bound(name)


@pytest.mark.parametrize("sites", [3, 4, 5, 7])
def test_the_secure_sum_is_the_plain_sum(table, sites):
    session = table(sites)
    assert_sum(session, session.run())
    assert session.survivors == session.names


@pytest.mark.parametrize("step", ["deal", "mask", "sign", "unmask", "total"])
@pytest.mark.parametrize("lost", [1, 2])
def test_it_is_that_of_those_who_stayed_whenever_the_others_dropped_out(table, step, lost):
    session = table(7, share=0.7)  # five of seven must stay
    gone = ["centre", "west"][:lost]
    assert_sum(session, session.run({step: gone}))
    assert session.collector.threshold == 5
    in_the_sum = step not in ("deal", "mask")
    assert all((name in session.survivors) == in_the_sum for name in gone)


def test_sites_may_drop_out_at_different_steps(table):
    session = table(7, share=0.55)  # four of seven
    assert_sum(session, session.run({"deal": ["east"], "mask": ["far"], "unmask": ["west"]}))
    assert session.survivors == ["centre", "near", "north", "south", "west"]


def test_who_has_sent_no_keys_is_not_in_the_group_and_lowers_the_threshold(table):
    session = table(7)
    assert_sum(session, session.run({"keys": ["east", "west"]}))
    assert session.collector.threshold == 4


@pytest.mark.parametrize("step", ["mask", "sign"])
def test_below_the_threshold_there_is_no_sum(table, step, refused):
    with refused("of 5"):
        table(5).run({step: ["east", "west"]})


def test_with_fewer_shares_than_the_threshold_there_is_no_sum(table, refused):
    session = table(5).run_until_unmasked()
    for name in ("east", "west"):
        del session.shares[name]
    with refused("3 shares of a seed that needs 4"):
        session.total()


@pytest.mark.parametrize("sites", [1, 2])
def test_fewer_than_three_sites_have_no_sum(table, sites, refused):
    with refused(f"a secure sum over {sites} sites, needed are 3"):
        table(sites).run()


def test_the_quorum_of_the_study_is_the_least(refused):
    with refused("over 4 sites, needed are 5"):
        Threshold(0.6, 5).threshold(4)
    assert [Threshold(2 / 3).threshold(n) for n in (3, 4, 5, 6, 9, 20)] == [3, 3, 4, 4, 6, 14]
    assert [Threshold(0.51).threshold(n) for n in (4, 10, 20)] == [3, 6, 11]
    assert Threshold(1.0).threshold(20) == 20
    assert Threshold(0.6, 5).threshold(6) == 5
    with refused("over 101 sites, 100 are the most"):
        Threshold(0.6).threshold(101)


# --- What the coordinator sees -------------------------------------------------------------------


def test_what_a_site_sends_looks_random_whatever_it_holds(table):
    session = table(3)
    for values in session.values.values():
        values["weights"] = np.zeros((200, 50), np.float32)  # the least random there is
    session.until("sign")
    for masked in session.masked.values():
        counts = np.bincount(masked["weights"].view(np.uint8).reshape(-1), minlength=256)
        expected = counts.sum() / 256
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert chi2.sf(statistic, 255) > 1e-6
    one, other = (session.masked[name]["weights"] for name in ("north", "south"))
    assert np.mean(one == other) < 0.01


def test_without_the_shares_the_sum_of_all_masked_numbers_is_not_the_sum(table):
    session = table(4).until("sign")
    sites = session.names
    naive = np.sum([session.masked[name]["weights"] for name in sites], axis=0, dtype=np.uint32)
    wrong = restore(naive, RANGES["weights"], 4)
    assert np.abs(wrong - session.plain()["weights"]).max() > 1


def test_the_self_mask_hides_a_site_whose_mask_key_is_known(table):
    """A late answer of a site taken for lost: its pairwise masks can be made, its own cannot."""
    session = table(4).until("sign")
    west = session.parties["west"]
    plain = session.integers("west")
    arrays = {name: array.copy() for name, array in session.masked["west"].items()}
    for name in ("east", "north", "south"):
        purpose = pair_purpose(west.group.transcript, QUESTION, "west", name)
        key = agreed(west._mask_key, west.group.keys[name].mask_key, name, purpose)
        add_mask(arrays, key, -1 if name > "west" else 1)
    assert np.mean(arrays["weights"] == plain["weights"]) < 0.05


# --- A coordinator in the middle -----------------------------------------------------------------


def swapped(session, name, **changes):
    """The keys of a session, one site's changed."""
    return [replace(k, **changes) if k.site == name else k for k in session.signed]


@pytest.mark.parametrize("field", ["share_key", "mask_key"])
def test_a_coordinator_that_swaps_a_key_for_its_own_is_refused_by_every_other_site(
    table, field, refused
):
    session = table(4).until("deal")
    own = table(4).parties["west"].offer()  # as if the coordinator had made it
    keys = swapped(session, "west", **{field: getattr(own, field)})
    for name in ("east", "north", "south"):
        with refused("the keys of 'west' are not signed by its registered key"):
            session.parties[name].deal(keys)
    with refused("the keys of this site were altered"):
        session.parties["west"].deal(keys)


def test_keys_signed_with_the_coordinators_own_key_are_refused(table, refused):
    session = table(4).until("deal")
    key, public = new_key()
    impostor = Party("west", key, {**session.registered, "west": public}, STUDY, session.session,
                     session.terms)  # fmt: skip
    keys = [impostor.offer() if k.site == "west" else k for k in session.signed]
    with refused("the keys of 'west' are not signed"):
        session.parties["north"].deal(keys)


def test_keys_of_another_session_or_study_are_refused(table, refused):
    session = table(4).until("deal")
    for other in (
        session.party("west", session="cd" * 16),
        session.party("west", study="6" * 64),
    ):
        keys = [other.offer() if k.site == "west" else k for k in session.signed]
        party = session.party("north")
        own = party.offer()
        with refused("the keys of 'west' are not signed by its registered key for this session"):
            party.deal([own if k.site == "north" else k for k in keys])


def test_one_sites_signature_under_another_name_is_refused(table, refused):
    session = table(4).until("deal")
    stolen = next(k for k in session.signed if k.site == "east")
    keys = [replace(stolen, site="west") if k.site == "west" else k for k in session.signed]
    with refused("the keys of 'west' are not signed"):
        session.parties["north"].deal(keys)


def test_an_invented_site_is_refused(table, refused):
    session = table(4).until("deal")
    stranger = replace(session.signed[0], site="nowhere")
    with refused("'nowhere' is not among the registered sites"):
        session.parties["north"].deal([*session.signed, stranger])


def test_a_site_twice_is_refused(table, refused):
    session = table(4).until("deal")
    with refused("east: more than one key of the same site"):
        session.parties["north"].deal([*session.signed, session.signed[0]])


def test_a_site_that_is_left_out_or_alone_with_too_few_refuses(table, refused):
    session = table(4).until("deal")
    without = [k for k in session.signed if k.site != "north"]
    with refused("altered or left out"):
        session.parties["north"].deal(without)
    with refused("a secure sum over 2 sites"):
        session.parties["west"].deal([k for k in session.signed if k.site in ("west", "east")])


def test_a_site_that_is_not_on_its_own_list_or_with_another_key_takes_no_part(table, refused):
    session = table(4)
    others = {name: key for name, key in session.registered.items() if name != "north"}
    with refused("'north' is not among the registered keys"):
        session.party("north", registered=others)
    with refused("'north' is not among the registered keys"):
        session.party("north", registered={**others, "north": session.registered["west"]})


def test_a_key_that_agrees_on_the_same_secret_with_everyone_is_refused(table, refused):
    session = table(4).until("deal")
    west = next(k for k in session.signed if k.site == "west")
    statement = keys_statement(STUDY, SESSION, "west", bytes(32), west.mask_key)
    bad = replace(west, share_key=bytes(32), signature=KEYS["west"][0].sign(statement, SIGNING))
    keys = [bad if k.site == "west" else k for k in session.signed]
    with refused("the key of 'west' is not one that may be agreed with"):
        session.parties["north"].deal(keys)


# --- Shares on their way -------------------------------------------------------------------------


def test_a_changed_envelope_is_refused_by_its_senders_name(table, refused):
    session = table(4).until("mask")
    sealed = session.sealed["north"]
    sealed["west"] = bytes([sealed["west"][0] ^ 1]) + sealed["west"][1:]
    with refused("the sealed shares of 'west': was changed on its way"):
        session.parties["north"].receive(sealed, session.collector.promises)


def test_an_envelope_for_another_site_or_of_another_sender_cannot_be_opened(table, refused):
    session = table(4).until("mask")
    with refused("the sealed shares of 'west'"):
        session.parties["north"].receive(
            {**session.sealed["north"], "west": session.sealed["east"]["west"]},
            session.collector.promises,
        )
    with refused("the sealed shares of 'east'"):
        session.parties["south"].receive(
            {**session.sealed["south"], "east": session.sealed["south"]["west"]},
            session.collector.promises,
        )


def test_sites_that_were_told_different_keys_cannot_read_each_other(table, refused):
    session = table(5).until("deal")
    fewer = [k for k in session.signed if k.site != "centre"]
    deal = session.parties["west"].deal(session.signed)
    session.parties["north"].deal(fewer)
    with refused("'west' has committed to shares for 5 sites, there are 4"):
        session.parties["north"].receive({"west": deal.sealed["north"]}, {"west": deal.promise})


def test_envelopes_of_strangers_and_too_few_are_refused(table, refused):
    session = table(4).until("mask")
    with refused("shares of 'nowhere', which is no other site of this session"):
        session.parties["north"].receive(
            {**session.sealed["north"], "nowhere": bytes(48)}, session.collector.promises
        )
    with refused("shares of 'south', which is no other"):
        session.parties["south"].receive({"south": bytes(48)}, session.collector.promises)
    with refused("shares of 2 sites, at least 3 of 4 must stay"):
        session.parties["east"].receive(
            {"west": session.sealed["east"]["west"]}, session.collector.promises
        )


def test_shares_without_their_dealers_own_promise_are_refused(table, refused):
    session = table(4).until("mask")
    promises, forged = session.collector.promises, new_key()[0]
    with refused("shares of 'west', and nothing of what it commits to"):
        session.parties["north"].receive(
            session.sealed["north"], {k: v for k, v in promises.items() if k != "west"}
        )
    other = replace(promises["west"], signature=forged.sign(b"", SIGNING))
    with refused("what 'west' commits to is not signed by its registered key for this session"):
        session.parties["south"].receive(session.sealed["south"], {**promises, "west": other})
    with refused("what 'east' commits to is not signed"):
        session.parties["west"].receive(
            session.sealed["west"], {**promises, "east": promises["north"]}
        )


# --- Who is in the sum ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("survivors", "words"),
    [
        (["east", "north"], "a sum over 2 sites, at least 3 of 4 must stay"),
        (["east", "south", "west"], "this site has sent its numbers and is not in the sum"),
        (["east", "north", "nowhere", "west"], "nowhere: in the sum without having dealt"),
        (["east", "east", "north", "west"], "sorted, each of them once"),
        (["west", "north", "east"], "sorted, each of them once"),
    ],
)
def test_lists_that_a_site_does_not_sign(table, survivors, words, refused):
    with refused(words):
        table(4).until("sign").parties["north"].sign(survivors)


def test_two_lists_of_survivors_uncover_nobody(table, refused):
    """North and east are told that west is in the sum, south that it is not: no key's mask and
    self-mask are ever both given, as neither list is signed by enough."""
    session = table(5).until("sign")
    whole, fewer = session.names, ["centre", "east", "north", "south"]
    signatures = {name: session.parties[name].sign(whole) for name in ("centre", "east", "west")}
    signatures |= {name: session.parties[name].sign(fewer) for name in ("north", "south")}
    for name in ("centre", "east", "west"):
        with refused("3 sites have signed what this site has .* needed are 4 of 5"):
            session.parties[name].unmask(whole, signatures)
    for name in ("north", "south"):
        with refused("2 sites have signed"):
            session.parties[name].unmask(fewer, signatures)


def test_another_list_than_was_signed_is_refused(table, refused):
    session = table(5).until("unmask")
    with refused("another list of sites than this site has signed"):
        session.parties["north"].unmask(["centre", "east", "north", "south"], session.signatures)


def test_signatures_of_others_or_under_false_names_do_not_count(table, refused):
    session = table(4).until("unmask")
    one = session.signatures["east"]
    with refused("1 sites have signed"):
        session.parties["north"].unmask(
            session.survivors, {"east": one, "west": one, "south": one, "nowhere": one}
        )
    right = {name: session.signatures[name] for name in ("east", "north", "south")}
    session.parties["south"].unmask(session.survivors, {**right, "west": one})


def test_sites_that_were_asked_different_questions_have_no_sum(table, refused):
    """As a coordinator would that has all but one train with a learning rate of zero. West notices
    it; the others need not, but their masks with west do not cancel."""
    session = table(4)
    session.questions["west"] = "8" * 64
    session.until("unmask")
    with refused("1 sites have signed what this site has"):
        session.parties["west"].unmask(session.survivors, session.signatures)
    session.lose(["west"])
    session.unmask()
    result = session.total()
    for name in RANGES:
        assert np.abs(result[name] - session.plain()[name]).max() > 1


def test_of_each_site_one_kind_of_share_is_given_and_only_once(table, refused):
    session = table(5).run_until_unmasked({"mask": ["west"]})
    for shares in session.shares.values():
        assert list(shares.mask_keys) == ["west"]
        assert sorted(shares.self_masks) == session.survivors
        assert not shares.mask_keys.keys() & shares.self_masks.keys()
    with refused("out of order: asked is unmasked, this site has done unmasked"):
        session.parties["north"].unmask(session.survivors, session.signatures)


@pytest.mark.parametrize("step", ["deal", "receive", "mask", "sign", "unmask"])
def test_no_step_before_its_time(table, step, refused):
    party = table(4).parties["north"]
    arguments = {
        "deal": [[]],
        "receive": [{}, {}],
        "mask": [{}, ""],
        "sign": [[]],
        "unmask": [[], {}],
    }
    with refused(r"out of order: .* this site has done made"):
        getattr(party, step)(*arguments[step])


def test_no_step_a_second_time_even_if_it_was_refused(table, refused):
    session = table(4).until("sign")
    party = session.parties["north"]
    with refused("at least 3"):
        party.sign(["east", "north"])
    with refused("out of order: asked is survivors, this site has done survivors"):
        party.sign(session.survivors)
    with refused("out of order"):
        party.offer()
    with refused("out of order"):
        session.parties["east"].mask({}, "")


# --- Sites that lie to the coordinator -----------------------------------------------------------


@pytest.mark.parametrize(("field", "lost"), [("self_masks", []), ("mask_keys", ["west"])])
def test_a_wrong_share_is_refused_and_the_sum_is_made_of_the_others(table, refused, field, lost):
    session = table(7, share=0.6).run_until_unmasked({"mask": lost})
    dealer = next(iter(getattr(session.shares["east"], field)))
    shares = getattr(session.shares["east"], field)
    liar = replace(session.shares["east"], **{field: {**shares, dealer: bytes(16)}})
    with refused(f"sends another share than '{dealer}' has dealt to it"):
        session.collector.check_unmasking("east", liar)
    del session.shares["east"]
    assert_sum(session, session.total())


def dealt_wrong(session, dealer, holder):
    """What a dealer deals that seals other shares for one site than it has committed to."""
    deal, party = session.deals[dealer], session.parties[dealer]
    envelope = party._envelope(dealer, holder)
    wrong = seal(bytes(32), party._envelope_key(dealer, holder), envelope)
    return replace(deal, sealed={**deal.sealed, holder: wrong})


def test_who_deals_wrong_shares_is_shown_by_the_site_that_has_them(table):
    session = table(5).until("mask")
    session.deals["west"] = dealt_wrong(session, "west", "north")
    sealed = session.collector.take_deals(session.deals)
    with pytest.raises(DealtWrongError, match="the shares of 'west' are not those it has") as told:
        session.parties["north"].receive(sealed["north"], session.collector.promises)
    assert told.value.proof["dealer"] == "west"
    with pytest.raises(LiarError, match="'west' has dealt wrong shares") as liar:
        session.collector.check_accusation("north", told.value.proof)
    assert liar.value.site == "west"


def test_nobody_can_accuse_a_site_that_has_dealt_rightly(table):
    session = table(5).until("mask")
    key = session.parties["north"]._envelope_key("west", "north").hex()
    for proof in (
        {},
        {"dealer": "west"},
        {"dealer": "nowhere", "key": key},
        {"dealer": "north", "key": key},
        {"dealer": "west", "key": key},  # it opens the envelope, and all is right there
        {"dealer": "west", "key": "00" * 32},
        {"dealer": "east", "key": key},
        {"dealer": 3, "key": None},
    ):
        session.collector.check_accusation("north", proof)


@pytest.mark.parametrize("lost", [[], ["west"]])
def test_who_commits_to_shares_of_another_seed_is_named_and_there_is_no_sum(table, lost):
    session = table(5)
    west = session.parties["west"]
    west._self_seed, west._mask_seed = bytes(16), bytes(16)  # after its mask key was made of it
    session.until("mask")
    promise = session.deals["west"].promise
    other = commitment(bytes(range(16)), b"")
    statement = promise_statement(west.group.transcript, "west", other, promise.shares)
    signature = KEYS["west"][0].sign(statement, SIGNING)
    promise = replace(promise, commitment=other, signature=signature)
    session.deals["west"] = replace(session.deals["west"], promise=promise)
    session.sealed = session.collector.take_deals(session.deals)
    session.lose(lost)
    for step in ("mask", "sign", "unmask"):
        getattr(session, step)()
    with pytest.raises(LiarError, match="'west' has dealt wrong shares"):
        session.total()


def test_deals_and_shares_that_do_not_fit_are_refused(table, refused):
    session = table(4).until("deal")
    deal = session.parties["north"].deal(session.signed)
    lacking = replace(deal, sealed={"east": deal.sealed["east"]})
    with refused("shares are missing, or of strangers: south, west"):
        session.collector.check_deal("north", lacking)
    fewer = replace(deal, promise=replace(deal.promise, shares=deal.promise.shares[1:]))
    with refused("commitments are missing, or of strangers"):
        session.collector.check_deal("north", fewer)
    with refused("'north' has committed to shares for 3 sites, there are 4"):
        session.collector.check_deal("north", fewer, session.registered["north"])
    with refused("what 'north' commits to is not signed"):
        session.collector.check_deal("north", deal, session.registered["west"])
    session = table(4).run_until_unmasked()
    shares = session.shares["north"]
    with refused("shares that do not fit who is in the sum"):
        session.collector.check_unmasking("north", replace(shares, mask_keys={"west": bytes(16)}))
    with refused("not a site whose numbers are still missing"):
        session.collector.add("north", session.masked["north"])


def test_a_collector_without_keys_has_no_group():
    with pytest.raises(MessageError, match="no keys yet"):
        _ = Collector("5" * 64, "ab" * 16, Threshold(0.6), "7" * 64).group


def test_keys_survive_the_wire(table):
    session = table(3).until("deal")
    assert [SignedKeys.from_json(k.to_json()) for k in session.signed] == session.signed
