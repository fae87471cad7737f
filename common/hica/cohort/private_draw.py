"""Draws of a private study: no patient changes whether another one is drawn.

A unit (a patient, or an image) is drawn where its place, a number from 0 to 1 that only the seed
and its own name decide, is below a rate. A draw of the first n in some order would not do: one
patient who is added pushes another one out, which is twice the change that noise is made for.

The rate follows from how many units there are, rounded to a quarter. These rounded numbers are what
the coordinator is told and what noise is computed from; they count as public.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from hica.images.manifest import Record

Unit = Literal["patient", "image"]

MOST_IMAGES = 4
"""Of one patient in a draw. A patient counts once, however many images it has."""


class Draw(NamedTuple):
    """Rows that were drawn, and the rounded number of units that the coordinator is told."""

    rows: list[int]
    announced: int


def draw_units(
    records: Sequence[Record], rows: Iterable[int], wanted: int, seed: object, unit: Unit
) -> Draw:
    """Draw about `wanted` units of those that `rows` of the records belong to.

    Where there are no more than that, all are drawn. Of a patient come `MOST_IMAGES` images at
    most; which, its own images decide. Rows are in the order of units and images by hash.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: place(seed, records[row].name)):
        record = records[row]
        members[record.group if unit == "patient" else record.name].append(row)
    announced = rounded(len(members))
    rate = wanted / announced if wanted < announced else 1.0
    drawn = sorted((place(seed, name), name) for name in members if place(seed, name) < rate)
    chosen = [row for _, name in drawn for row in members[name][:MOST_IMAGES]]
    return Draw(chosen, min(wanted, announced))


def rounded(count: int) -> int:
    """The largest of 0, 1, 2, 3, and 4, 5, 6, 7 times a power of two, that is not above `count`."""
    spare = max(count.bit_length() - 3, 0)
    return count >> spare << spare


def place(seed: object, name: str) -> float:
    """Where a name stands between 0 and 1; the same on any machine."""
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
