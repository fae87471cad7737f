"""Which of the pictures that were read are taken: one slice of a volume, and no raw detector data.

All others say why not. It depends on headers and labels alone, never on the order of files.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from hica_client.intake import reasons
from hica_client.intake.register import PICTURE, Register

Slice = tuple[str, float | None, int, str, str]
"""Series, position, number, instance and key."""


def select(register: Register) -> None:
    """Write into `left_out` why a picture of this import is not taken."""
    register.change(
        "UPDATE sources SET left_out = ? WHERE run = ? AND intent = 'FOR PROCESSING' AND study IN "
        "(SELECT study FROM sources WHERE run = ? AND intent = 'FOR PRESENTATION')",
        *(reasons.RAW, register.run, register.run),
    )
    slices = register.rows(
        "SELECT series, position, number, instance, key FROM sources "
        f"WHERE run = ? AND slice = 1 AND {PICTURE} AND series != '' AND key NOT IN "
        "(SELECT key FROM asked_for) ORDER BY series, position, number, instance, key",
        register.run,
    )
    asked = {
        series
        for (series,) in register.rows(
            "SELECT DISTINCT series FROM sources JOIN asked_for USING (key) WHERE run = ?",
            register.run,
        )
    }
    others = list(_others(slices, asked))
    register.many(
        "UPDATE sources SET left_out = ? WHERE key = ?", ((reasons.SLICE, key) for key in others)
    )
    register.commit()


def _others(slices: Iterator[Slice], asked: set[str]) -> Iterator[str]:
    """The keys of all slices but the middle one of each series that has none asked for.

    The middle is that of the positions, or of the numbers where no slice says its position: one
    that was stored twice counts once.
    """
    for series, group in groupby(slices, key=itemgetter(0)):
        listed = list(group)
        placed = [each for each in listed if each[1] is not None] or listed
        places = sorted({_place(each) for each in placed})
        at_middle = [each for each in placed if _place(each) == places[len(places) // 2]]
        taken = "" if series in asked else min(at_middle, key=itemgetter(2, 3, 4))[4]
        yield from (key for *_, key in listed if key != taken)


def _place(each: Slice) -> float:
    """The position of a slice; where it says none, its number."""
    return each[2] if each[1] is None else each[1]
