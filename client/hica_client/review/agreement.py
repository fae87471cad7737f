"""Agreement of two reviewers: Cohen's kappa, and what they differ in."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from hica_client.decisions import KINDS, Kind
from hica_client.review.desk import Desk

MOST_SHOWN = 200
"""Differences that are listed."""
TITLES: Mapping[Kind, str] = {
    "cluster": "clusters",
    "image": "images left out",
    "region": "regions",
    "label": "labels",
}


def kappa(one: list[str], other: list[str]) -> float | None:
    """Cohen's kappa of two lists of verdicts on the same things (Cohen, 1960).

    None where it is not defined: nothing in common, or one and the same verdict throughout.
    """
    from sklearn.metrics import cohen_kappa_score

    if len({*one, *other}) < 2:
        return None
    return float(cohen_kappa_score(one, other))


def agreement(desk: Desk) -> dict[str, Any]:
    """Of every kind and pair of reviewers, and what reviewers differ in."""
    pairs: list[dict[str, Any]] = []
    differ: list[dict[str, Any]] = []
    keys = {row.record.sha256: row.key for row in desk.rows.values() if row.record.sha256}
    for kind in KINDS:
        said = desk.standing.of_kind(kind)
        reviewers = sorted({who for each in said.values() for who in each})
        for one, other in combinations(reviewers, 2):
            both = [each for each in said.values() if one in each and other in each]
            if both:
                mine, theirs = [each[one] for each in both], [each[other] for each in both]
                same = sum(a == b for a, b in zip(mine, theirs, strict=True))
                pairs.append(
                    {
                        "of": TITLES[kind],
                        "reviewers": [one, other],
                        "things": len(both),
                        "same": same,
                        "kappa": kappa(mine, theirs),
                    }
                )
        for item, each in said.items():
            if len(set(each.values())) > 1:
                key = None if kind == "cluster" else keys.get(item.partition("-")[0])
                told = {"of": TITLES[kind], "key": key, "what": _what(kind, item), "said": each}
                differ.append(told)
    return {"pairs": pairs, "differ": differ[:MOST_SHOWN], "more": max(0, len(differ) - MOST_SHOWN)}


def _what(kind: Kind, item: str) -> str:
    """Which one, in words."""
    last = item.rpartition("/")[2]
    return {"cluster": f"cluster {last}", "region": f"region {last}"}.get(kind, "")
