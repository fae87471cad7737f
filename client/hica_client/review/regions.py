"""Regions: those of every image that is learnt from, to accept or to reject."""

from typing import Any

from hica_client.review.desk import Desk
from hica_client.review.pictures import COLOURS, check_place, region_masks


def keys(desk: Desk) -> list[str]:
    """Images that regions are learnt from, shots first; held-out ones are not looked at here."""
    order = ("shot", "unlabelled")
    return [row.key for role in order for row in desk.rows.values() if row.role == role]


def regions(desk: Desk, key: str) -> dict[str, Any]:
    """An image's regions, each with what the reviewer says of it.

    Raises:
        DataError: The image cannot be read, or is not there any more.
    """
    row = desk.row(key)
    masks = region_masks(desk, row)
    of = desk.pipeline.regions_key(desk.held(row))
    told = [
        {
            "place": place,
            "share": float(mask.mean()),
            "colour": COLOURS[place % len(COLOURS)],
            "verdict": desk.own("region", f"{of}/{place}"),
        }
        for place, mask in enumerate(masks)
    ]
    return {"image": desk.told(row), "regions": told}


def judge(desk: Desk, key: str, places: list[int], verdict: str | None) -> None:
    """Keep what the reviewer says of some regions of an image.

    Raises:
        DataError: It has no such region, cannot be read, or is not there any more.
        StorageError: It cannot be written.
    """
    row = desk.row(key)
    masks = region_masks(desk, row)
    for place in places:
        check_place(masks, place)
    of = desk.pipeline.regions_key(desk.held(row))
    for place in places:
        desk.say(desk.decision("region", f"{of}/{place}", verdict))
