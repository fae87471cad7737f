"""Clusters: the pseudo-labels of stage 1 at this site, as galleries."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from hica.errors import DataError
from hica_client.review.desk import PAGE, Desk, Row

NONE_YET = (
    "no clusters yet: they come with stage 1 of the study, while `hica-client run` runs, or the "
    "study has no stage 1"
)


@dataclass(frozen=True)
class Clusters:
    """The last clustering of a study at the site.

    Attributes:
        found_by: Which clustering it is.
        rows: The images of each cluster, by its number; clusters of none are left out.
    """

    found_by: str
    rows: dict[int, list[Row]]

    def item(self, number: int) -> str:
        """What a cluster is called in the record of decisions."""
        return f"{self.found_by}/{number}"


def clusters(desk: Desk) -> Clusters | None:
    """The present clusters; None before there are any."""
    session = desk.session
    if not session.has_kept("pseudo_labels"):
        return None
    kept = session.kept("pseudo_labels")
    by_id = {row.id: row for row in desk.rows.values() if row.id}
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for image, label in zip(kept["images"], kept["labels"].tolist(), strict=True):
        row = by_id.get(bytes(image).hex())
        if row is not None:
            found[label].append(row)
    question = session.kept_of("pseudo_labels") or ""
    rows = {number: sorted(found[number], key=lambda row: row.key) for number in sorted(found)}
    return Clusters(f"{desk.study.sha256[:16]}/{question[:16]}", rows)


def listed(desk: Desk) -> dict[str, Any]:
    """What the page is told of all clusters."""
    found = clusters(desk)
    if found is None:
        return {"clusters": [], "why": NONE_YET, "used": True}
    told = []
    for number, rows in found.rows.items():
        said = desk.standing.of("cluster", found.item(number)).get(desk.reviewer)
        verdict, name = (said.verdict, said.name) if said else (None, "")
        told.append({"number": number, "images": len(rows), "verdict": verdict, "name": name})
    return {"clusters": told, "why": "", "used": not desk.study.privacy.is_private}


def gallery(desk: Desk, number: int, page: int) -> dict[str, Any]:
    """One page of a cluster's images.

    Raises:
        DataError: There is no such cluster.
    """
    rows = _rows(desk, number)[1]
    shown = rows[page * PAGE : (page + 1) * PAGE]
    pages = -(-len(rows) // PAGE)
    return {"images": [desk.told(row) for row in shown], "page": page, "pages": pages}


def judge(desk: Desk, number: int, verdict: str | None, name: str) -> None:
    """Keep what the reviewer says of a cluster.

    Raises:
        DataError: There is no such cluster.
        StorageError: It cannot be written.
    """
    found, rows = _rows(desk, number)
    images = tuple(row.id for row in rows)
    more: dict[str, Any] = {"study": desk.study.sha256, "name": name, "images": images}
    desk.say(desk.decision("cluster", found.item(number), verdict, **more))


def _rows(desk: Desk, number: int) -> tuple[Clusters, list[Row]]:
    found = clusters(desk)
    if found is None or number not in found.rows:
        raise DataError("this cluster is not there any more: load the page again")
    return found, found.rows[number]
