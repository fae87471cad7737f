"""Updates as no honest site sends them: each is made of a good one, as it leaves the runner."""

import io
import json
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body

Pack = Callable[[RecordDict], RecordDict]
"""Puts the small arrays of a record into a parcel, as the runner does with what it sends."""
Attack = Callable[[RecordDict, Pack], RecordDict]
MessageAttack = Callable[[Message], None]
"""Changes the whole message, which holds the record by then."""


class Unpicklable:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple:
        return exit, ("unpickled",)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Unpicklable()]), allow_pickle=True)
    return file.getvalue()


def with_values(change: Callable[[np.ndarray], np.ndarray]) -> Attack:
    """Other values in the first array."""
    return with_first_array(lambda name, array: (name, Array(change(array.numpy()))))


def with_bytes(data: bytes) -> Attack:
    """Other bytes in the first array, which says of itself what it said before."""
    return with_first_array(
        lambda name, array: (name, Array(array.dtype, array.shape, array.stype, data))
    )


def with_first_array(change: Callable[[str, Array], tuple[str, Array]]) -> Attack:
    def attack(record: RecordDict, pack: Pack) -> RecordDict:
        (name, array), *others = record.array_records["arrays"].items()
        changed = dict([change(name, array), *others])
        return pack(RecordDict({**record, "arrays": ArrayRecord(changed)}))

    return attack


def with_header(change: Callable[[str], str]) -> Attack:
    def attack(record: RecordDict, pack: Pack) -> RecordDict:
        header = change(record.config_records["message"]["header"])
        return pack(RecordDict({**record, "message": ConfigRecord({"header": header})}))

    return attack


def with_parcel(parcel: bytes) -> Attack:
    def attack(record: RecordDict, pack: Pack) -> RecordDict:
        packed = pack(record)
        message = {**packed.config_records["message"], "parcel": parcel}
        return RecordDict({**packed, "message": ConfigRecord(message)})

    return attack


def forged(kind: type, body: bytes) -> type:
    """A class whose objects pass for Flower's `kind`, whatever is in them."""

    class Forged(kind):
        def deflate(self) -> bytes:
            return add_header_to_object_body(body, self)

    Forged.__qualname__ = kind.__qualname__
    return Forged


def unreadable(record: RecordDict, pack: Pack) -> RecordDict:
    """An object that Flower takes in, and fails to build a record of."""
    return RecordDict({"message": forged(ConfigRecord, b"\xff")({"a": 1})})


def endless(record: RecordDict, pack: Pack) -> RecordDict:
    """A hundred bytes of an array, a thousand million times."""
    body = {"dtype": "uint8", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 10**7}
    arrays = ArrayRecord()
    arrays["shared.a"] = forged(Array, json.dumps(body).encode())(np.zeros(100, np.uint8))
    return RecordDict({**record, "arrays": arrays})


def with_reason(reason: str) -> MessageAttack:
    """A failure in place of the update."""
    return lambda message: message.__dict__.update(_content=None, _error=Error(2, reason))


def field(**changes: object) -> Callable[[str], str]:
    """Other fields in a header."""
    return lambda header: json.dumps(json.loads(header) | changes)


ATTACKS: dict[str, Attack] = {
    "large_array": with_values(lambda values: np.zeros(2**21, values.dtype)),
    "large_header": with_header(lambda header: header + " " * 5_000_000),
    "no_json": with_header(lambda header: header[:-1]),
    "no_text": with_header(field(details={"failed": "\ud800"})),
    "pickle": with_bytes(pickled()),
    "forged_parcel": with_parcel(b"\xff" * 100),
    "nan": with_values(lambda values: np.full_like(values, np.nan)),
    "dtype": with_values(lambda values: values.astype(np.float64)),
    "array_name": with_first_array(lambda name, array: ("shared.other", array)),
    "site_name": with_header(field(site="north")),
    "unreadable": unreadable,
    "endless": endless,
}

MESSAGE_ATTACKS: dict[str, MessageAttack] = {
    "long_reason": with_reason("x" * 500_000),  # the gateway takes no longer ones
}
