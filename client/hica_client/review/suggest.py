"""Suggest: what to label next at this site; nothing of it leaves.

Before a study is over, images are compared by the study's tower as it is before any training; after
that by the final model, which also says where it is unsure.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hica.errors import DataError
from hica.method.suggestions import Suggestion, suggested
from hica.seeds import derived_seed
from hica_client.prediction.models import SiteModels
from hica_client.result import is_told
from hica_client.review.desk import Desk, Row
from hica_client.review.looking import Look, Looked, by_model, by_tower

TOGETHER = 32
"""Images that are in memory at a time."""


@dataclass(frozen=True)
class Suggested:
    """An image to label, and why."""

    row: Row
    why: Suggestion


def suggestions(
    desk: Desk, count: int, track: Callable[[Sequence[Row]], Iterable[Row]] = iter
) -> list[Suggested]:
    """At most `count` images to label, the most useful first; `track` shows how far it is.

    Held-out images, images that a reviewer has rejected and images that have a label are none; one
    that cannot be read is passed over, as `check` says it.

    Raises:
        DataError: There is no image to choose from.
        CheckpointError: The study's weights, or the final model, are not as they should be.
    """
    free, known = without_label(desk)
    told = is_told(desk.site, desk.study.sha256)
    look = (
        by_model(SiteModels(desk.site, desk.study, own=False)) if told else by_tower(desk.session)
    )
    rows, looked = list[Row](), list[Looked]()
    left = iter(track([*known, *free]) if free else ())
    while chunk := list(islice(left, TOGETHER)):
        for some in _readable(look, chunk, looked):
            rows += some
    is_free = np.isin([row.key for row in rows], [row.key for row in free])
    if not is_free.any():
        raise DataError(
            f"{desk.site.data.manifest}: no image without a label to choose from: all have one, "
            "are held out, were rejected or cannot be read; add rows with an empty label"
        )
    embeddings = np.concatenate([each.embeddings for each in looked])
    entropies = [each.entropy for each in looked if each.entropy is not None]
    unlabelled = [row for row, each in zip(rows, is_free, strict=True) if each]
    found = suggested(
        embeddings[is_free],
        [row.record.group for row in unlabelled],
        embeddings[~is_free],
        count,
        derived_seed(desk.study.study.seed, "suggestions") % 2**32,
        np.concatenate(entropies)[is_free] if entropies else None,
    )
    return [Suggested(unlabelled[each.row], each) for each in found]


def as_csv(found: Sequence[Suggested]) -> bytes:
    """A table of suggestions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["order", "image", "patient_id", "alike", "typicality", "uncertainty"])
    for number, each in enumerate(found, 1):
        record, why = each.row.record, each.why
        numbers = (why.alike, f"{why.typicality:.3f}", f"{why.uncertainty:.3f}")
        writer.writerow([number, record.name, record.patient_id or "", *numbers])
    return text.getvalue().encode()


def without_label(desk: Desk) -> tuple[list[Row], list[Row]]:
    """Images that may be suggested, and those that have a label already; none is held out."""
    reviewed = desk.standing.reviewed
    held = {row.record.group for row in desk.rows.values() if row.role == "held out"}
    free, known = list[Row](), list[Row]()
    for row in desk.rows.values():
        if row.record.split == "test" or row.record.group in held:
            continue
        image = ""
        if reviewed.labels or reviewed.rejected:
            try:
                image = desk.sha256(row)
            except DataError:
                continue
        if image not in reviewed.rejected:
            # Who has said "none of the classes" is not asked again.
            has_one = row.record.label is not None or image in reviewed.labels
            (known if has_one else free).append(row)
    return free, known


def _readable(look: Look, rows: list[Row], looked: list[Looked]) -> Iterable[list[Row]]:
    """Look at a few rows; those that can be read, what was seen of them in `looked`."""
    try:
        looked.append(look([row.record for row in rows]))
        yield rows
    except DataError:
        if len(rows) > 1:
            for row in rows:
                yield from _readable(look, [row], looked)
