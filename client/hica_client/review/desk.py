"""Desk: the images, the clusters and the decisions that a reviewer works on."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hica.cohort.pipeline import Pipeline
from hica.errors import ConfigurationError, DataError
from hica.images.cache import key_of
from hica.images.manifest import Record, read_manifest
from hica.images.pixels import image_of
from hica.study import Study
from hica_client.decisions import Decision, Kind, Standing, decide, stamp, standing
from hica_client.draws import site_roles
from hica_client.session import Session
from hica_client.site import Site
from hica_client.withdrawal import left_in
from hica_client.withdrawals import withdrawn

PAGE = 60
"""Images of a gallery."""


@dataclass(frozen=True)
class Row:
    """An image of the site.

    Attributes:
        key: What the page calls it: nothing of its name.
        record: Its row of the manifest, or of the study's draw.
        role: `shot`, `unlabelled`, `held out` or `not in this study`.
        id: What the study's draw calls it; empty where it has no role.
    """

    key: str
    record: Record
    role: str
    id: str


class Desk:
    """What one reviewer works on; several threads may ask at once."""

    def __init__(self, site: Site, study: Study, reviewer: str) -> None:
        self.site, self.study, self.reviewer = site, study, reviewer
        self._lock = threading.RLock()
        self._made_from: object = None
        self._rows: dict[str, Row] = {}
        self._decided: tuple[int, int] | None = None
        self._standing = Standing()
        self._seen: dict[str, str] = {}
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The study at this site; nothing of it is kept."""
        self._look_again()
        assert self._session is not None
        return self._session

    @property
    def pipeline(self) -> Pipeline:
        """What makes model input of an image; the tower is loaded once."""
        with self._lock:
            return self.session.pipeline

    @property
    def rows(self) -> Mapping[str, Row]:
        """All images by key, in the manifest's order; without those of who has withdrawn."""
        self._look_again()
        return self._rows

    @property
    def standing(self) -> Standing:
        """All decisions, of every reviewer."""
        with self._lock:
            if (now := stamp(self.site)) != self._decided:
                self._decided, self._standing = now, standing(self.site)
            return self._standing

    @cached_property
    def classes(self) -> Sequence[str]:
        """The study's, in its order."""
        return self.study.class_names

    def row(self, key: str) -> Row:
        """An image.

        Raises:
            DataError: There is none of this key.
        """
        found = self.rows.get(key)
        if found is None:
            raise DataError("this image is not in the manifest any more; load the page again")
        return found

    def sha256(self, row: Row) -> str:
        """The SHA-256 of an image's file, as it was when it was first listed.

        Raises:
            DataError: It cannot be read, or has changed since the study was drawn.
        """
        if row.key not in self._seen:
            self._seen[row.key] = row.record.sha256 or image_of(row.record)[1]
        return self._seen[row.key]

    def held(self, row: Row) -> Record:
        """The record of an image, that is shown with no other content than it was listed with.

        Raises:
            DataError: As `sha256`.
        """
        return replace(row.record, sha256=self.sha256(row))

    def own(self, kind: Kind, item: str) -> str | None:
        """What this reviewer says of a thing; None: nothing."""
        said = self.standing.of(kind, item).get(self.reviewer)
        return said.verdict if said else None

    def told(self, row: Row) -> dict[str, Any]:
        """What the page is told of an image."""
        told: dict[str, Any] = {"key": row.key, "name": row.record.name, "role": row.role}
        told |= {"label": row.record.label or "", "given": None, "rejected": False, "why": ""}
        try:
            image = self.sha256(row)
        except DataError as error:
            return told | {"why": str(error)}
        rejected = self.own("image", image) == "reject"
        return told | {"given": self.own("label", image), "rejected": rejected}

    def say(self, decision: Decision) -> None:
        """Keep what the reviewer says.

        Raises:
            DataError: The record was changed.
            StorageError: It cannot be written.
        """
        with self._lock:
            decide(self.site, [decision])

    def decision(self, kind: Kind, item: str, verdict: str | None, **more: Any) -> Decision:
        """One of this reviewer."""
        return Decision(self.reviewer, kind, item, verdict, **more)

    def check_class(self, name: str | None) -> None:
        """Check that a label is a class of the study, none of them (empty), or undone (None).

        Raises:
            ConfigurationError: It is something else.
        """
        if name and name not in self.classes:
            raise ConfigurationError(f"{name[:80]!r}: the classes are {', '.join(self.classes)}")

    def _look_again(self) -> None:
        """Read rows and roles where the manifest or the withdrawals have changed."""
        with self._lock:
            made_from = [
                _state_of(file) for file in (self.site.data.manifest, self.site.withdrawals)
            ]
            if made_from == self._made_from:
                return
            roles = site_roles(self.site, self.study, keep=False)
            session = Session(self.site, self.study, roles)
            role_of = {row.name: "unlabelled" for row in (*roles.pool, *roles.rest)}
            role_of |= {row.name: "shot" for row in roles.shots}
            role_of |= {row.name: "held out" for row in roles.test}
            drawn = {row.name: row for row in (*roles.train_in_use, *roles.test)}
            records = left_in(read_manifest(self.site.data.manifest), withdrawn(self.site))[0]
            self._rows = {
                key: Row(
                    key,
                    _with_hash(row, drawn),
                    role_of.get(row.name, "not in this study"),
                    roles.ids.get(row.name, "") if row.name in drawn else "",
                )
                for row in records
                for key in [key_of("image", row.name)[:24]]
            }
            self._seen, self._session, self._made_from = {}, session, made_from


def _with_hash(row: Record, drawn: Mapping[str, Record]) -> Record:
    """The manifest's row, its label as it stands there, held to the image that was drawn."""
    return replace(row, sha256=drawn[row.name].sha256) if row.name in drawn else row


def _state_of(file: Path) -> tuple[int, int]:
    found = file.stat() if file.exists() else None
    return (found.st_size, found.st_mtime_ns) if found else (0, 0)
