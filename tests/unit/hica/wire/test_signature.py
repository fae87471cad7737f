import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message import make_message
from hypothesis import given
from hypothesis import strategies as st
from tests.coordinator import KEY, signed

from hica.errors import MessageError
from hica.wire.packing import pack, unpack
from hica.wire.signature import RECORD, content_hash, verify, with_signature

TOLD = {
    "run_id": 11,
    "message_id": "",
    "src_node_id": 1,
    "dst_node_id": 2**63 + 7,
    "reply_to_message_id": "",
    "group_id": "3",
    "created_at": 1.0,
    "ttl": 60.0,
    "message_type": "train.align",
}


def content(header="so", **arrays):
    arrays = arrays or {"a": np.ones((2, 3), np.float32), "b": np.zeros(4)}
    return RecordDict(
        {
            "message": ConfigRecord({"header": header}),
            "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
        }
    )


def request(record=None, **told):
    return make_message(metadata=Metadata(**{**TOLD, **told}), content=record or content())


def refused(message, words="not signed for this site by the coordinator"):
    with pytest.raises(MessageError, match=f"{words}.*get a new start kit"):
        verify(message, KEY.public_key())


def test_what_was_signed_is_accepted_and_nothing_else_is_changed():
    message = signed(request())
    verify(message, KEY.public_key())
    assert message.content["message"] == content()["message"]
    assert message.content["arrays"] == content()["arrays"]


def test_the_way_it_is_packed_is_no_part_of_it():
    message = signed(request())
    message.content = unpack(pack(message.content))
    verify(message, KEY.public_key())


@pytest.mark.parametrize(
    "told",
    [
        {"message_type": "train.moments"},
        {"run_id": 12},
        {"dst_node_id": 8},
        {"group_id": "4"},
    ],
)
def test_for_another_kind_run_site_or_round_it_is_worth_nothing(told):
    refused(request(signed(request()).content, **told))


def test_id_and_time_of_a_message_are_no_part_of_it():
    later = request(signed(request()).content, message_id="x", created_at=2.0, ttl=5.0)
    verify(later, KEY.public_key())


CHANGED = {
    "header": content(header="other"),
    "value": content(a=np.zeros((2, 3), np.float32), b=np.zeros(4)),
    "name": content(c=np.ones((2, 3), np.float32), b=np.zeros(4)),
    "left out": content(a=np.ones((2, 3), np.float32)),
    "added": content(a=np.ones((2, 3), np.float32), b=np.zeros(4), c=np.zeros(1)),
    "record added": RecordDict({**content(), "more": MetricRecord({"a": 1})}),
    "entry added": RecordDict({**content(), "message": ConfigRecord({"header": "so", "a": b""})}),
    "bytes for text": RecordDict({**content(), "message": ConfigRecord({"header": b"so"})}),
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
def test_every_part_of_the_content_is_covered(changed):
    signature = signed(request()).content[RECORD][RECORD]
    refused(request(with_signature(changed, signature)))


@pytest.mark.parametrize("field", ["dtype", "shape", "stype"])
def test_what_an_array_says_of_itself_is_covered(field):
    said = {"dtype": "float32", "shape": (2,), "stype": "numpy.ndarray", "data": b"12345678"}
    other = {"dtype": "int32", "shape": (1, 2), "stype": "else"}
    one, two = (
        RecordDict({"arrays": ArrayRecord({"a": Array(**each)})})
        for each in (said, {**said, field: other[field]})
    )
    assert content_hash(one) != content_hash(two)


def test_by_another_key_it_is_not_signed():
    refused(signed(request(), ec.generate_private_key(ec.SECP384R1())))


@pytest.mark.parametrize("signature", [b"", b"x" * 100, "text", 7])
def test_no_signature_or_nonsense(signature):
    refused(request(with_signature(content(), signature)), "the request is not signed")


def test_none_at_all():
    refused(request(), "the request is not signed")
    refused(request(RecordDict({RECORD: MetricRecord({RECORD: 1})})), "the request is not signed")


def test_an_error_in_place_of_a_content():
    asked = request()
    refused(Message(Error(0, "lost"), reply_to=asked), "no content and no signature")


def test_records_without_entries_count_as_none():
    """Flower's transport leaves the arrays away where there are none."""
    bare = RecordDict({"message": ConfigRecord({"header": "so"})})
    assert content_hash(bare) == content_hash(RecordDict({**bare, "arrays": ArrayRecord()}))


PARTS = st.dictionaries(st.text(max_size=3), st.binary(max_size=3) | st.text(max_size=3))


@given(st.dictionaries(st.text(max_size=2), PARTS, max_size=3))
def test_two_contents_have_two_hashes(parts):
    """Against a plain value that says the same: nothing runs into its neighbour."""
    seen = _SEEN
    record = RecordDict({name: ConfigRecord(part) for name, part in parts.items()})
    meant = repr(sorted((n, sorted(p.items())) for n, p in parts.items() if p and n != RECORD))
    assert seen.setdefault(content_hash(record), meant) == meant


_SEEN: dict[bytes, str] = {}


def test_no_array_is_copied(monkeypatch):
    """What is hashed is the very bytes of the array."""
    fed = []

    class Hash:
        def update(self, data):
            fed.append(data)

        def digest(self):
            return b""

    monkeypatch.setattr("hica.wire.signature.hashlib.sha256", Hash)
    record = content()
    content_hash(record)
    for array in record["arrays"].values():
        assert any(piece is array.data for piece in fed)
