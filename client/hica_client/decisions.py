"""Decisions: what reviewers have said of clusters, images, regions and labels; kept for good.

The record is a chain like the audit log: who said what, when; nothing is ever taken out of it. Of
what one reviewer said of one thing, the last counts. Where reviewers differ, the careful one is
followed: what any of them has rejected is not learnt from, and a label that they do not agree on
is none.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from hica.cohort.reviewed import Reviewed
from hica_client.chain import Chain
from hica_client.site import Site

REMEDY = (
    "Restore it from a backup with its head. Or move both files away together and keep them: all "
    "that was reviewed is then as if nobody had looked"
)

Kind = Literal["cluster", "image", "region", "label"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ACCEPT, REJECT = "accept", "reject"
NO_CLASS = ""
"""Verdict of a label: the image shows none of the classes."""


@dataclass(frozen=True)
class Decision:
    """What a reviewer said.

    Attributes:
        reviewer: Who.
        kind: Of what.
        item: Which one: SHA-256 of an image's file; of a region `cohort.pipeline.regions_key` and
            its place, of a cluster what it was found by, and its number.
        verdict: `accept` or `reject`; of a label the class. None: what was said before is undone.
        study: SHA-256 of the study whose cluster it is.
        name: That the reviewer gave to a cluster.
        images: Of a cluster, as they are called in the study's draw.
        time: When, UTC.
    """

    reviewer: str
    kind: Kind
    item: str
    verdict: str | None
    study: str = ""
    name: str = ""
    images: tuple[str, ...] = ()
    time: str = ""


@dataclass(frozen=True)
class Standing:
    """All decisions that count today."""

    all: tuple[Decision, ...] = ()
    latest: Mapping[tuple[Kind, str], Mapping[str, Decision]] = field(default_factory=dict)
    """Of each thing, the last word of each reviewer."""

    def of(self, kind: Kind, item: str) -> Mapping[str, Decision]:
        """What each reviewer says of a thing."""
        return self.latest.get((kind, item), {})

    def of_kind(self, kind: Kind) -> dict[str, dict[str, str]]:
        """What each reviewer says of everything of a kind: item → reviewer → verdict."""
        found = {
            item: {who: d.verdict for who, d in said.items() if d.verdict is not None}
            for (each, item), said in self.latest.items()
            if each == kind
        }
        return {item: said for item, said in found.items() if said}

    @property
    def reviewed(self) -> Reviewed:
        """What roles depend on."""
        labels: dict[str, str | None] = {}
        for image, said in self.of_kind("label").items():
            given = set(said.values())
            labels[image] = (given.pop() or None) if len(given) == 1 else None
        return Reviewed(labels, self._rejected("image"))

    @property
    def regions(self) -> dict[str, frozenset[int]]:
        """Rejected regions: key of an image's regions → places among them."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for item in self._rejected("region"):
            key, _, place = item.rpartition("/")
            found[key].add(int(place))
        return {key: frozenset(places) for key, places in found.items()}

    def in_rejected_clusters(self, study: str) -> frozenset[str]:
        """Images of a study in clusters that somebody has rejected, of earlier clusterings too.

        An image is in another cluster after the next clustering. It stays rejected until the same
        reviewer accepts one that it is in.
        """
        rejected: defaultdict[str, set[str]] = defaultdict(set)
        for each in self.all:
            if each.kind == "cluster" and each.study == study:
                if each.verdict == REJECT:
                    rejected[each.reviewer].update(each.images)
                else:
                    rejected[each.reviewer].difference_update(each.images)
        return frozenset().union(*rejected.values())

    def _rejected(self, kind: Kind) -> frozenset[str]:
        return frozenset(i for i, said in self.of_kind(kind).items() if REJECT in said.values())


def decide(site: Site, decisions: Iterable[Decision]) -> None:
    """Record what a reviewer has said; it is on disk when this returns.

    Raises:
        DataError: The record was changed or cut short.
        StorageError: It cannot be written.
    """
    with _chain(site).held() as tail:
        for each in decisions:
            fields = {name: value for name, value in asdict(each).items() if name != "time"}
            tail.append({"event": "review", **fields, "images": list(each.images)})


def standing(site: Site) -> Standing:
    """All that was decided.

    Raises:
        DataError: The record was changed or cut short.
        StorageError: It cannot be read.
    """
    return _counted([_decision(entry) for entry in _chain(site).verify()])


def stamp(site: Site) -> tuple[int, int]:
    """What changes whenever something is decided."""
    if not site.decisions.exists():
        return 0, 0
    found = site.decisions.stat()
    return found.st_size, found.st_mtime_ns


def _chain(site: Site) -> Chain:
    return Chain(site.decisions, REMEDY)


def _decision(entry: Mapping[str, Any]) -> Decision:
    fields = {name: entry[name] for name in Decision.__dataclass_fields__}
    return Decision(**fields | {"images": tuple(entry["images"])})


def _counted(decisions: list[Decision]) -> Standing:
    latest: defaultdict[tuple[Kind, str], dict[str, Decision]] = defaultdict(dict)
    for each in decisions:
        latest[each.kind, each.item][each.reviewer] = each
    return Standing(tuple(decisions), dict(latest))
