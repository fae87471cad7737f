import io
import json
import pickle
import struct

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from hica.errors import CheckpointError, ConfigurationError, MessageError
from hica.study import Study
from hica.wire.messages import Reply, Request, SiteError, failure, spec_of
from hica.wire.records import (
    PROTOCOL,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    payload_bytes,
)

ALIGN = "train.align"
STUDY = Study.model_validate(
    {
        "study": {"name": "toy"},
        "classes": [{"name": "a", "prompts": ["one"]}, {"name": "b", "prompts": ["two"]}],
    }
)
WEIGHTS = {"shared.w": np.arange(6, dtype=np.float32).reshape(2, 3)}


def update(**changes: object) -> RecordDict:
    """A good update, its header changed."""
    reply = Reply(ALIGN, "north", 3, 10, {"loss": 0.5}, WEIGHTS)
    record = encode_reply(reply)
    header = json.loads(record.config_records["message"]["header"])
    record.config_records["message"]["header"] = json.dumps({**header, **changes})
    return record


def with_array(array: Array, name: str = "shared.w") -> RecordDict:
    record = update()
    record.array_records["arrays"] = ArrayRecord({name: array})
    return record


def refusal(record: RecordDict) -> str:
    with pytest.raises(MessageError) as error:
        decode_reply(record, ALIGN, 3, spec_of(WEIGHTS))
    return str(error.value)


def test_a_request_arrives_as_it_was_sent() -> None:
    sent = Request(ALIGN, STUDY, 3, {"rate": 0.5}, WEIGHTS)
    received = decode_request(encode_request(sent), ALIGN)
    assert received.study.sha256 == STUDY.sha256
    assert (received.round, received.settings) == (3, {"rate": 0.5})
    np.testing.assert_array_equal(received.arrays["shared.w"], WEIGHTS["shared.w"])


def test_a_reply_arrives_as_it_was_sent() -> None:
    received = decode_reply(update(), ALIGN, 3, spec_of(WEIGHTS))
    assert (received.site, received.examples, received.details) == ("north", 10, {"loss": 0.5})
    np.testing.assert_array_equal(received.arrays["shared.w"], WEIGHTS["shared.w"])
    assert not received.arrays["shared.w"].flags.writeable  # it is not a copy


def test_a_request_with_a_broken_study_is_refused() -> None:
    record = encode_request(Request(ALIGN, STUDY))
    header = json.loads(record.config_records["message"]["header"])
    header["study"]["alignment"]["shots"] = -1
    record.config_records["message"]["header"] = json.dumps(header)
    with pytest.raises(ConfigurationError, match=r"alignment\.shots"):
        decode_request(record, ALIGN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": PROTOCOL - 1}, "install the same version"),
        ({"protocol": None}, f"protocol None, this side speaks {PROTOCOL}"),
        ({"kind": "train.pretrain"}, "expected 'train.align'"),
        ({"round": 2}, "answers round 3, asked was round 4"),
        ({"round": True}, "'round'"),
        ({"site": ""}, "1 to 64 characters"),
        ({"site": "x" * 65}, "1 to 64 characters"),
        ({"examples": -1}, "claims -1 examples"),
        ({"examples": "many"}, "'examples' is missing or no int"),
        ({"details": []}, "'details' is missing or no dict"),
        ({"details": {"failed": "\ud800"}}, "half of a surrogate pair"),
    ],
)
def test_a_wrong_header_is_refused_by_name(changes: dict, words: str) -> None:
    assert words in refusal(update(**changes))


def test_why_a_site_could_not_arrives_with_the_class_of_its_error() -> None:
    error = CheckpointError("centre: missing")
    record = encode_reply(failure(ALIGN, "north", 3, f"CheckpointError: {error}", error))
    with pytest.raises(SiteError, match="failed at the site: CheckpointError: centre") as found:
        decode_reply(record, ALIGN, 3, spec_of(WEIGHTS))
    assert (found.value.site, found.value.error) == ("north", "CheckpointError")


def test_reasons_of_a_site_are_cut_and_may_be_anything() -> None:
    for details, words in (({"failed": "x" * 2000}, "x" * 1000), ({"failed": [1]}, "[1]")):
        with pytest.raises(SiteError) as found:
            decode_reply(update(details=details), ALIGN, 3, spec_of(WEIGHTS))
        assert str(found.value) == f"failed at the site: {words}"
        assert found.value.error == ""


def test_a_request_s_arrays_are_copies_that_may_be_changed() -> None:
    sent = encode_request(Request(ALIGN, STUDY, 0, {}, WEIGHTS))
    assert decode_request(sent, ALIGN).arrays["shared.w"].flags.writeable


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_request_with_values_that_are_not_finite_is_refused(bad: float) -> None:
    """At decoding already: what is checked after it need not think of them."""
    sent = encode_request(Request(ALIGN, STUDY, 0, {}, {"bias": np.array([0.0, bad])}))
    with pytest.raises(MessageError, match="'bias' holds NaN or infinite"):
        decode_request(sent, ALIGN)


@pytest.mark.parametrize("header", ["not json", "[1]", "[" * 100_000, "1" * 5000])
def test_a_header_that_is_no_object_is_refused(header: str) -> None:
    record = update()
    record.config_records["message"]["header"] = header
    assert "header is not" in refusal(record)


def test_a_message_of_something_else_is_refused() -> None:
    assert "not a HiCA message" in refusal(RecordDict({"config": ConfigRecord({"lr": 0.1})}))


def test_an_oversized_header_is_refused() -> None:
    record = update()
    record.config_records["message"]["header"] = " " * 4_000_001
    assert "at most" in refusal(record)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = WEIGHTS["shared.w"].copy()
    values[1, 2] = bad
    assert "'shared.w' holds NaN or infinite" in refusal(with_array(Array(values)))


def test_a_wrong_shape_is_refused() -> None:
    assert "shape (3, 2), expected (2, 3)" in refusal(
        with_array(Array(np.zeros((3, 2), dtype=np.float32)))
    )


def test_a_wrong_type_is_refused() -> None:
    assert "type float64, expected float32" in refusal(with_array(Array(np.zeros((2, 3)))))


def test_missing_and_unasked_arrays_are_refused() -> None:
    message = refusal(with_array(Array(np.zeros(1, dtype=np.float32)), "shared.v"))
    assert "missing ['shared.w'], not asked for ['shared.v']" in message


def test_a_header_that_promises_more_than_the_body_holds_is_refused_before_memory_is_taken() -> (
    None
):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (2, 3)}
    )
    array = Array("float32", (2, 3), "numpy.ndarray", buffer.getvalue() + b"1234")
    assert "4 bytes do not fill shape (2, 3)" in refusal(with_array(array))


def test_a_giant_promised_shape_is_refused() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)}
    )
    record = with_array(Array("float32", (2, 3), "numpy.ndarray", buffer.getvalue()))
    with pytest.raises(MessageError, match="do not fill"):
        decode_reply(record, ALIGN, 3, {"shared.w": ((-1, -1), "float32")})


class Evil:
    def __reduce__(self) -> tuple:
        return (eval, ("1/0",))


def test_pickles_are_not_opened() -> None:
    for data in (pickle.dumps(Evil()), np_object_bytes()):
        array = Array("float32", (2, 3), "numpy.ndarray", data)
        message = refusal(with_array(array))
        assert "not a plain NumPy array" in message or "only plain numbers" in message


def np_object_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04zip", b"\x93NUMPY\x03\x00" + struct.pack("<I", 9)]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    assert "not a plain NumPy array" in refusal(
        with_array(Array("float32", (2, 3), "numpy.ndarray", data))
    )


def test_payload_counts_arrays_and_header() -> None:
    record = update()
    header = len(record.config_records["message"]["header"])
    assert payload_bytes(record) == len(Array(WEIGHTS["shared.w"]).data) + header
