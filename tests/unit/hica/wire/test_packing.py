"""What is packed arrives as it was, in fewer objects; what is forged is left closed."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from hica.errors import MessageError
from hica.steps.alignment import ALIGNMENT
from hica.wire.messages import Reply, spec_of
from hica.wire.packing import LARGEST, PARCEL, SMALL, pack, unpack
from hica.wire.records import decode_reply, encode_reply

WEIGHTS = {f"shared.{i}": np.full((i, 2), i, np.float32) for i in range(5)}
LARGE = np.zeros(SMALL // 4, np.float32)


def update(arrays: dict[str, np.ndarray]) -> RecordDict:
    return encode_reply(Reply(ALIGNMENT.kind, "north", 3, 10, {"loss": 0.5}, arrays))


def content(record: RecordDict) -> list[tuple]:
    """All of the arrays, in their order."""
    arrays = record.array_records["arrays"].items()
    return [(name, a.dtype, tuple(a.shape), a.stype, a.data) for name, a in arrays]


@given(st.permutations([*WEIGHTS, "large", "flag"]))
def test_a_record_is_unpacked_to_what_it_was_packed_from(order):
    arrays = {**WEIGHTS, "large": LARGE, "flag": np.array(True)}
    record = update({name: arrays[name] for name in order})
    before = content(record)
    packed = pack(record)
    assert list(packed.array_records["arrays"]) == ["large"]
    assert (
        packed.array_records["arrays"]["large"].data is record.array_records["arrays"]["large"].data
    )
    assert content(unpack(packed)) == before == content(record)
    assert unpack(packed).config_records["message"] == record.config_records["message"]


def test_a_record_of_small_arrays_travels_as_its_header_alone():
    record = update(WEIGHTS)
    assert list(pack(record)) == ["message"]
    assert content(unpack(pack(record))) == content(record)


def test_what_a_parcel_has_no_room_for_travels_beside_it():
    arrays = {f"{i}": np.full(SMALL - 200, i, np.uint8) for i in range(6)}
    record = update(arrays)
    packed = pack(record)
    assert list(packed.array_records["arrays"]) == ["4", "5"]
    assert len(packed.config_records["message"][PARCEL]) < LARGEST + 1000
    assert content(unpack(packed)) == content(record)


@pytest.mark.parametrize(
    "record",
    [
        RecordDict({"message": ConfigRecord({"header": "{}"})}),
        RecordDict({"arrays": ArrayRecord([np.zeros(3)])}),
        RecordDict({"message": ConfigRecord({"header": "{}", PARCEL: "text"})}),
        update({}),
        update({"large": LARGE}),
    ],
)
def test_what_holds_no_small_arrays_is_left_as_it_is(record):
    assert pack(record) is record
    assert unpack(record) is record


def parcel_of(index: object, data: bytes) -> RecordDict:
    head = json.dumps(index).encode()
    return with_parcel(len(head).to_bytes(8, "little") + head + data)


def with_parcel(data: bytes, **others: Array) -> RecordDict:
    record = update({})
    record.config_records["message"][PARCEL] = data
    record.array_records["arrays"] = ArrayRecord(others)
    return record


@pytest.mark.parametrize(
    "record",
    [
        with_parcel(b""),
        with_parcel(b"\xff" * 8),
        with_parcel((2**63).to_bytes(8, "little") + b"{}"),
        with_parcel((100_000).to_bytes(8, "little") + b"[" * 100_000),
        parcel_of([], b""),
        parcel_of({"w": ["float32", [1], "numpy.ndarray"]}, b"1234"),
        parcel_of({"w": ["float32", [1], "numpy.ndarray", -4]}, b""),
        parcel_of({"w": ["float32", [-1], "numpy.ndarray", 4]}, b"1234"),
        parcel_of({"w": ["float32", [1], "numpy.ndarray", 4]}, b"123"),
        parcel_of({"w": ["float32", [1], "numpy.ndarray", 4]}, b"12345"),
        parcel_of({"w": ["float32", [1], "numpy.ndarray", 2**70]}, b"1234"),
        parcel_of({"w": None}, b""),
        with_parcel((2).to_bytes(8, "little") + b"{}", w=Array(np.zeros(1))),
    ],
)
def test_a_forged_parcel_stays_closed_and_is_refused_for_what_is_missing(record):
    assert unpack(record) is record
    with pytest.raises(MessageError, match=r"arrays missing \['shared.w'\]"):
        decode_reply(record, ALIGNMENT.kind, 3, spec_of({"shared.w": np.zeros(1)}))
