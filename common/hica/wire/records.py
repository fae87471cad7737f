"""Requests and replies as Flower's records, and the checks before anything of one is used.

A message is a `RecordDict` with one `ArrayRecord` ("arrays") and one `ConfigRecord` ("message",
JSON text). Nothing that arrives is trusted: sizes, names, shapes, types and finite values are
checked first, and arrays are read from NumPy's plain format by header and buffer, never unpickled.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from hica.errors import MessageError
from hica.study import Name, Study, validated
from hica.wire.messages import Arrays, Reply, Request, SiteError, Spec, shown_round

PROTOCOL = 3
"""Raised whenever a message of one version would be misread by the other."""

_NAME = TypeAdapter(Name)

MAX_TEXT_BYTES = 4_000_000
MAX_HEADER_BYTES = 4096


def encode_request(request: Request) -> RecordDict:
    """Request → record."""
    header = {
        "protocol": PROTOCOL,
        "kind": str(request.kind),
        "round": request.round,
        "study": request.study.model_dump(mode="json"),
        "settings": request.settings,
    }
    return _encode(header, request.arrays)


def encode_reply(reply: Reply) -> RecordDict:
    """Reply → record."""
    header = {
        "protocol": PROTOCOL,
        "kind": str(reply.kind),
        "round": reply.round,
        "site": reply.site,
        "examples": reply.examples,
        "details": reply.details,
    }
    return _encode(header, reply.arrays)


def decode_request(record: RecordDict, kind: str) -> Request:
    """Record → request of the kind the handler is registered for, at the site.

    Raises:
        MessageError: Names what is wrong.
    """
    header = _header(record, {"study": dict, "settings": dict}, kind)
    study = validated(Study, header["study"], "study received")
    received: Mapping[str, Array] = record.array_records.get("arrays", {})
    arrays = {name: _read(name, array, None).copy() for name, array in received.items()}
    return Request(kind, study, header["round"], header["settings"], arrays)


def decode_reply(record: RecordDict, kind: str, round_: int, spec: Spec) -> Reply:
    """Record → reply, at the coordinator.

    Its arrays are read-only views of what was received: an update is not held twice.

    Raises:
        SiteError: The site says why it could not.
        MessageError: Wrong version, kind, round, names, shapes or types, or values not finite.
    """
    header = _header(record, {"site": str, "examples": int, "details": dict}, kind)
    if header["round"] != round_:
        answered, asked = shown_round(header["round"]), shown_round(round_)
        raise MessageError(f"answers round {answered}, asked was round {asked}")
    if not 0 < len(header["site"]) <= 64:
        raise MessageError("site name must have 1 to 64 characters")
    read_name(header["site"])
    if not 0 <= header["examples"] <= 10**9:
        raise MessageError(f"claims {header['examples']} examples")
    if "failed" in header["details"]:
        details = header["details"]
        reason, error = (str(details.get(name, ""))[:1000] for name in ("failed", "error"))
        raise SiteError(header["site"], reason, error, details.get("proof"))
    arrays = _arrays(record, spec)
    return Reply(
        kind, header["site"], header["round"], header["examples"], header["details"], arrays
    )


def read_name(value: Any) -> str:
    """A site's name, as a study may hold one; else a MessageError."""
    try:
        return _NAME.validate_python(value, strict=True)
    except ValidationError:
        raise MessageError(f"{str(value)[:64]!r} is no name of a site") from None


def payload_bytes(record: RecordDict) -> int:
    """Bytes of a message's arrays and texts, as they are serialised."""
    arrays = sum(
        len(array.data) for part in record.array_records.values() for array in part.values()
    )
    texts = sum(
        len(value.encode())
        for part in record.config_records.values()
        for value in part.values()
        if isinstance(value, str)
    )
    return arrays + texts


def _encode(header: dict[str, Any], arrays: Arrays) -> RecordDict:
    """JSON header and arrays in one record."""
    return RecordDict(
        {
            "message": ConfigRecord({"header": json.dumps(header)}),
            "arrays": ArrayRecord(
                {name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()}
            ),
        }
    )


def _header(record: RecordDict, fields: dict[str, type], kind: str) -> dict[str, Any]:
    """The checked JSON header of a message."""
    message = record.config_records.get("message")
    text = message.get("header") if message is not None else None
    if not isinstance(text, str):
        raise MessageError("no header: not a HiCA message")
    if len(text) > MAX_TEXT_BYTES:
        raise MessageError(f"header of {len(text)} bytes, at most {MAX_TEXT_BYTES} are read")
    try:
        header = json.loads(text)
        json.dumps(header, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # "\ud800" is JSON, but neither a log nor a report can hold it
        raise MessageError("header holds half of a surrogate pair, which is no text") from None
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5000 digits
        raise MessageError(f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise MessageError("header is not a JSON object")
    if header.get("protocol") != PROTOCOL:
        raise MessageError(
            f"protocol {header.get('protocol')!r}, this side speaks {PROTOCOL}: "
            "install the same version of hica on both sides"
        )
    for name, kind_of_field in {"kind": str, "round": int, **fields}.items():
        if not isinstance(header.get(name), kind_of_field) or isinstance(header[name], bool):
            raise MessageError(f"header field {name!r} is missing or no {kind_of_field.__name__}")
    if header["kind"] != str(kind):
        raise MessageError(f"is a {header['kind']!r}, expected {str(kind)!r}")
    return header


def _arrays(record: RecordDict, spec: Spec) -> Arrays:
    """The checked arrays of a message, in the order of `spec`."""
    received = dict(record.array_records.get("arrays", {}))
    missing, unknown = sorted(spec.keys() - received.keys()), sorted(received.keys() - spec.keys())
    if missing or unknown:
        raise MessageError(f"arrays missing {missing}, not asked for {unknown}")
    return {name: _read(name, received[name], expected) for name, expected in spec.items()}


def _read(name: str, array: Array, expected: tuple[tuple[int, ...], str] | None) -> NDArray[Any]:
    """One array of NumPy's plain format, checked and left where it lies."""
    buffer = io.BytesIO(array.data[:MAX_HEADER_BYTES])
    try:
        version = np.lib.format.read_magic(buffer)
        if version != (1, 0):
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(
            buffer, max_header_size=MAX_HEADER_BYTES
        )
    except (ValueError, SyntaxError, TypeError) as error:
        raise MessageError(f"array {name!r} is not a plain NumPy array: {error}") from None
    if dtype.hasobject or dtype.kind not in "fiub" or fortran:
        raise MessageError(f"array {name!r} has type {dtype}, only plain numbers are read")
    if expected is not None:
        _check_against(name, shape, dtype, expected)
    start = buffer.tell()
    length = len(array.data) - start
    if length != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise MessageError(f"array {name!r}: {length} bytes do not fill shape {shape}")
    values = np.frombuffer(memoryview(array.data)[start:], dtype=dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise MessageError(f"array {name!r} holds NaN or infinite values")
    return values


def _check_against(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    expected: tuple[tuple[int, ...], str],
) -> None:
    """Shape and type as asked for; -1 stands for any length."""
    wanted, wanted_type = expected
    fits = len(shape) == len(wanted) and all(
        want in (-1, have) for want, have in zip(wanted, shape, strict=False)
    )
    if not fits:
        raise MessageError(f"array {name!r} has shape {shape}, expected {wanted}")
    if str(dtype) != wanted_type:
        raise MessageError(f"array {name!r} has type {dtype}, expected {wanted_type}")
