"""Parcels: the small arrays of a message travel as one.

Flower carries every array as objects of its own. Each is asked for by a request, which is signed,
checked and answered from the database: tens of milliseconds at the coordinator for a bias of a
hundred bytes, for every site and in both directions. Large arrays are left as they are, so that no
second copy of an update is held.

The parcel is one array of bytes: length of the index (8 bytes, little-endian), the index in JSON,
and the data of the small arrays one after the other.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, RecordDict
from pydantic import NonNegativeInt, TypeAdapter

PARCEL = "parcel"
"""Name of the array that holds the small ones."""
SMALL = 2**20
"""Arrays of fewer bytes go into the parcel; Flower cuts larger ones into pieces of 5 MiB."""
LENGTH_BYTES = 8

Index = dict[str, tuple[str, tuple[NonNegativeInt, ...], str, NonNegativeInt] | None]
"""All arrays in their order: dtype, shape, Flower's type and bytes; None for one not in here."""
INDEX: TypeAdapter[Index] = TypeAdapter(Index)


def pack(record: RecordDict) -> RecordDict:
    """The record with the small arrays of `arrays` in a parcel; itself where that saves nothing."""
    arrays = dict(record.array_records.get("arrays", {}))
    small = {name: array for name, array in arrays.items() if len(array.data) < SMALL}
    if len(small) < 2:
        return record
    index: Index = {
        name: _entry(array) if name in small else None for name, array in arrays.items()
    }
    head = INDEX.dump_json(index)
    length = len(head).to_bytes(LENGTH_BYTES, "little")
    data = b"".join([length, head, *(array.data for array in small.values())])
    parcel = Array("uint8", (len(data),), "hica.parcel", data)
    large = {name: array for name, array in arrays.items() if name not in small}
    return _with_arrays(record, {PARCEL: parcel, **large})


def unpack(record: RecordDict) -> RecordDict:
    """The record as it was before `pack`.

    One without a parcel is returned as it is; so is one whose parcel is damaged or forged, which
    `hica.messages` then refuses for the arrays it lacks.
    """
    arrays = dict(record.array_records.get("arrays", {}))
    parcel = arrays.pop(PARCEL, None)
    if parcel is None:
        return record
    opened = _opened(parcel.data, arrays)
    return record if opened is None else _with_arrays(record, opened)


def _entry(array: Array) -> tuple[str, tuple[int, ...], str, int]:
    return array.dtype, tuple(array.shape), array.stype, len(array.data)


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


def _with_arrays(record: RecordDict, arrays: dict[str, Array]) -> RecordDict:
    """The record with another `arrays`; its other parts are shared, not copied."""
    changed = RecordDict(dict(record))
    changed.array_records["arrays"] = ArrayRecord(arrays)
    return changed
