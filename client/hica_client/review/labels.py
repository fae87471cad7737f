"""Labels: the site's images in pages, each with its label, to confirm or to correct."""

from typing import Any

from hica_client.review.desk import PAGE, Desk, Row

UNLABELLED = "without label"


def choices(desk: Desk) -> list[dict[str, Any]]:
    """Which images can be asked for, and how many there are."""
    rows = list(desk.rows.values())
    names = [*desk.classes, *sorted({row.record.label or "" for row in rows} - {*desk.classes, ""})]
    counts = {name: sum(row.record.label == name for row in rows) for name in names}
    counts[UNLABELLED] = sum(not row.record.label for row in rows)
    return [{"of": "", "images": len(rows)}] + [
        {"of": name, "images": count} for name, count in counts.items() if count
    ]


def page_of(desk: Desk, label: str, page: int) -> dict[str, Any]:
    """A page of the images with a label, `UNLABELLED` ones, or, for an empty one, of all."""
    rows = [row for row in desk.rows.values() if _is(row, label)]
    shown = rows[page * PAGE : (page + 1) * PAGE]
    pages = max(1, -(-len(rows) // PAGE))
    return {"images": [desk.told(row) for row in shown], "page": page, "pages": pages}


def give_label(desk: Desk, key: str, label: str | None) -> None:
    """Keep the label that the reviewer gives an image: a class, none of them (empty), or undone.

    Raises:
        ConfigurationError: The study has no such class.
        DataError: The image is not there any more.
        StorageError: It cannot be written.
    """
    desk.check_class(label)
    desk.say(desk.decision("label", desk.sha256(desk.row(key)), label))


def judge_image(desk: Desk, key: str, verdict: str | None) -> None:
    """Keep whether anything is to be learnt from an image; raises as `give_label`."""
    desk.say(desk.decision("image", desk.sha256(desk.row(key)), verdict))


def _is(row: Row, label: str) -> bool:
    if not label:
        return True
    return not row.record.label if label == UNLABELLED else row.record.label == label
