"""Parcels: the small arrays of a message travel in one piece, beside its header.

Flower carries every array as three objects of its own. Each is asked for by a request, which is
signed, checked and answered from the database: tens of milliseconds at the coordinator for a bias
of a hundred bytes, for every site and in both directions. Large arrays are left as they are, so
that no second copy of an update is held and Flower can cut them into pieces.

The parcel is bytes: length of the index (8 bytes, little-endian), the index in JSON, and the data
of the small arrays one after the other.
"""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import NonNegativeInt, TypeAdapter

PARCEL = "parcel"
"""Name of the entry beside the message's header that holds the small arrays."""
SMALL = 2**20
"""Arrays of fewer bytes go into the parcel."""
LARGEST = 4 * 2**20
"""Bytes of data in a parcel; Flower cuts arrays into pieces of 5 MiB, and a parcel not at all."""
LENGTH_BYTES = 8

Index = dict[str, tuple[str, tuple[NonNegativeInt, ...], str, NonNegativeInt] | None]
"""All arrays in their order: dtype, shape, Flower's type and bytes; None for one not in here."""
INDEX: TypeAdapter[Index] = TypeAdapter(Index)


def pack(record: RecordDict) -> RecordDict:
    """The record with its small arrays in a parcel; itself where it has none."""
    arrays = dict(record.array_records.get("arrays", {}))
    small = _small(arrays)
    if "message" not in record.config_records or not small:
        return record
    index: Index = dict.fromkeys(arrays)
    for name, array in small.items():
        index[name] = array.dtype, tuple(array.shape), array.stype, len(array.data)
    head = INDEX.dump_json(index)
    length = len(head).to_bytes(LENGTH_BYTES, "little")
    parcel = b"".join([length, head, *(array.data for array in small.values())])
    message = ConfigRecord({**record.config_records["message"], PARCEL: parcel})
    large = {name: array for name, array in arrays.items() if name not in small}
    return _changed(record, message, large)


def unpack(record: RecordDict) -> RecordDict:
    """The record as it was before `pack`.

    One without a parcel is returned as it is; so is one whose parcel is damaged or forged, which
    `hica.wire.messages` then refuses for the arrays it lacks.
    """
    message = dict(record.config_records.get("message", {}))
    parcel = message.pop(PARCEL, None)
    if not isinstance(parcel, bytes):
        return record
    arrays = _opened(parcel, dict(record.array_records.get("arrays", {})))
    return record if arrays is None else _changed(record, ConfigRecord(message), arrays)


def _small(arrays: dict[str, Array]) -> dict[str, Array]:
    """Arrays that go into the parcel: the first ones that there is room for."""
    small, room = {}, LARGEST
    for name, array in arrays.items():
        if len(array.data) < SMALL and len(array.data) <= room:
            small[name] = array
            room -= len(array.data)
    return small


def _opened(data: bytes, large: dict[str, Array]) -> dict[str, Array] | None:
    """All arrays in their order; None where the parcel does not hold what its index says."""
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    try:
        index = INDEX.validate_json(data[LENGTH_BYTES:start])
    except ValueError:
        return None
    sizes = [entry[3] for entry in index.values() if entry is not None]
    elsewhere = {name for name, entry in index.items() if entry is None}
    if start + sum(sizes) != len(data) or elsewhere != large.keys():
        return None
    arrays = {}
    for name, entry in index.items():
        if entry is None:
            arrays[name] = large[name]
            continue
        dtype, shape, stype, size = entry
        arrays[name] = Array(dtype, shape, stype, data[start : start + size])
        start += size
    return arrays


def _changed(record: RecordDict, message: ConfigRecord, arrays: dict[str, Array]) -> RecordDict:
    """The record with other message and arrays; its further parts are shared, not copied."""
    changed = RecordDict({**record, "message": message})
    if arrays:
        changed["arrays"] = ArrayRecord(arrays)
    else:
        changed.pop("arrays", None)
    return changed
