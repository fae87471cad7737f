import json

import pytest

from hica.errors import MessageError
from hica.secure_sum.wire import (
    Deal,
    Promise,
    SignedKeys,
    Unmasking,
    read_list,
    read_names,
    read_session,
    read_signature,
    read_table,
    signature_of,
)

KEYS = SignedKeys("north", bytes(range(32)), bytes(32), bytes(100))
PROMISE = Promise(bytes(32), (bytes(64), bytes(range(64))), bytes(100))
DEAL = Deal(PROMISE, {"east": bytes(48), "west": bytes(range(48))})
UNMASKING = Unmasking({"east": bytes(16)}, {"west": bytes(range(16))})
BAD_HEX = ["", "00", 3, None, ["00"], "zz", "0", b"00", "AB" * 32, "00" * 31, "00" * 33]


@pytest.mark.parametrize("sent", [KEYS, PROMISE, DEAL, UNMASKING])
def test_everything_is_read_as_it_was_sent(sent):
    assert type(sent).from_json(json.loads(json.dumps(sent.to_json()))) == sent


@pytest.mark.parametrize("sent", [KEYS, PROMISE, DEAL, UNMASKING])
@pytest.mark.parametrize("change", ["missing", "more", "list", "none", "text"])
def test_tables_have_exactly_their_fields(sent, change):
    table = sent.to_json()
    if change == "missing":
        table.popitem()
    changed = {"missing": table, "more": {**table, "x": 1}, "list": [table], "none": None}
    with pytest.raises(MessageError, match="no table of"):
        type(sent).from_json(changed.get(change, json.dumps(table)))


@pytest.mark.parametrize("field", ["share_key", "mask_key"])
@pytest.mark.parametrize("value", BAD_HEX)
def test_keys_have_32_bytes(field, value):
    with pytest.raises(MessageError, match=field):
        SignedKeys.from_json({**KEYS.to_json(), field: value})


@pytest.mark.parametrize("value", [*BAD_HEX[:8], "00" * 63, "00" * 105])
def test_signatures_have_a_length_that_p_384_has(value):
    with pytest.raises(MessageError, match="signature"):
        SignedKeys.from_json({**KEYS.to_json(), "signature": value})
    with pytest.raises(MessageError, match="signature"):
        Promise.from_json({**PROMISE.to_json(), "signature": value})
    with pytest.raises(MessageError, match="signature"):
        read_signature(value)
    with pytest.raises(MessageError, match="signature"):
        signature_of({"signature": value})


@pytest.mark.parametrize("table", [None, {}, [], {"signature": "00" * 100, "more": 1}])
def test_an_answer_that_signs_is_a_signature_and_no_more(table):
    with pytest.raises(MessageError, match="survivors: no table of signature"):
        signature_of(table)


NAMES = ["", " a", "a" * 65, "a\n", "a\x00", "ü", 3, None, ["a"], "-a"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_that_a_study_may_hold(name):
    with pytest.raises(MessageError, match="is no name of a site"):
        SignedKeys.from_json({**KEYS.to_json(), "site": name})
    with pytest.raises(MessageError, match="is no name of a site"):
        read_names([name], "survivors")
    if isinstance(name, str):
        with pytest.raises(MessageError, match="is no name of a site"):
            read_table({name: "00"}, "signatures", read_signature)


@pytest.mark.parametrize("value", BAD_HEX)
def test_what_was_dealt_is_read_strictly(value):
    with pytest.raises(MessageError, match="commitment"):
        Promise.from_json({**PROMISE.to_json(), "commitment": value})
    with pytest.raises(MessageError, match="shares"):
        Promise.from_json({**PROMISE.to_json(), "shares": [value]})
    with pytest.raises(MessageError, match="sealed"):
        Deal.from_json({**DEAL.to_json(), "sealed": {"east": value}})
    for field in ("self_masks", "mask_keys"):
        with pytest.raises(MessageError, match="share"):
            Unmasking.from_json({**UNMASKING.to_json(), field: {"east": value}})


@pytest.mark.parametrize("value", [None, [], "x", 3, dict.fromkeys(map(str, range(101)), "00")])
def test_tables_by_site_are_tables_of_at_most_100(value):
    with pytest.raises(MessageError, match="sealed is no table of at most 100 sites"):
        Deal.from_json({**DEAL.to_json(), "sealed": value})


@pytest.mark.parametrize("value", [None, {}, "x", 3, list(map(str, range(101)))])
def test_lists_of_sites_are_lists_of_at_most_100(value):
    with pytest.raises(MessageError, match="keys is no list of at most 100 sites"):
        read_list(value, "keys")


def test_names_are_sorted_and_different():
    assert read_names(["a", "b"], "survivors") == ("a", "b")
    for names in (["b", "a"], ["a", "a"]):
        with pytest.raises(MessageError, match="survivors: names must be sorted, each of them on"):
            read_names(names, "survivors")


def test_a_session_has_32_digits():
    assert read_session("ab" * 16) == "ab" * 16
    for value in ("ab" * 15, "AB" * 16, None, 3):
        with pytest.raises(MessageError, match="session"):
            read_session(value)
