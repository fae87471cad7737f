"""Approvals: which studies this site takes part in, who decided so, and when.

Append-only: a revocation is a line of its own, and the last line about a study counts. What is
approved is the study's hash, so that a study changed in any setting needs a new approval.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hica.deployment.kit import ROSTER, roster_sha256
from hica.errors import ConfigurationError
from hica.study import Study
from hica_client.journal import append_line, opened, read_lines
from hica_client.site import Site


@dataclass(frozen=True)
class Approval:
    """A decision on a study."""

    study: str
    """Its SHA-256."""
    name: str
    """What it is called."""
    user: str
    """Who decided."""
    time: str
    """When, ISO 8601 with its offset."""
    approved: bool
    """False: an earlier approval was taken back."""
    policy: dict[str, Any]
    """The site's policy at that time."""
    keys: str | None = None
    """SHA-256 of the list of the sites' keys, where the study needs one."""


_APPROVAL = TypeAdapter(Approval)


def approve(site: Site, study: Study, user: str, when: datetime, keys: str | None = None) -> None:
    """Record that the site takes part in a study, with the sites of these keys.

    Raises:
        ConfigurationError: The record is not what was written there.
        StorageError: It cannot be written.
    """
    _record(site, study.sha256, study.study.name, user, when, True, keys)


def revoke(site: Site, approval: Approval, user: str, when: datetime) -> None:
    """Record that an approval is taken back; from now on the study's requests are refused.

    Raises:
        StorageError: It cannot be written.
    """
    _record(site, approval.study, approval.name, user, when, False, None)


def approved(site: Site, sha: str) -> bool:
    """Whether the site takes part in the study of this SHA-256, read anew each time.

    Raises:
        ConfigurationError: The record is not what was written there.
    """
    decision = decisions(site).get(sha)
    return decision is not None and decision.approved


def check_keys(site: Site, sha: str) -> None:
    """Check that the list of the sites' keys is the one that was approved with the study.

    Raises:
        ConfigurationError: It is another one, or missing.
    """
    decision = decisions(site).get(sha)
    if decision is None or decision.keys != roster_sha256(site.federation.kit):
        raise ConfigurationError(
            f"{site.federation.kit / ROSTER}: is not the list of keys that was approved with the "
            "study; read it, compare the fingerprints with the other sites, then run: "
            f"hica-client approve {site.file} {sha[:12]}"
        )


def decisions(site: Site) -> dict[str, Approval]:
    """The last decision on each study, by SHA-256, in the order they were first decided on.

    Raises:
        ConfigurationError: A line that is no decision; names file and line.
        StorageError: The record cannot be read.
    """
    latest: dict[str, Approval] = {}
    for number, line in enumerate(read_lines(site.approvals), start=1):
        decision = _decision(site.approvals, number, line)
        latest[decision.study] = decision
    return latest


def _record(
    site: Site, sha: str, name: str, user: str, when: datetime, approved: bool, keys: str | None
) -> None:
    """Append a decision, on disk when this returns."""
    policy = site.policy.model_dump(mode="json")
    time = when.isoformat(timespec="seconds")
    decision = Approval(sha, name, user, time, approved, policy, keys)
    with opened(site.approvals) as file:
        append_line(file, json.dumps(asdict(decision)).encode() + b"\n")


def _decision(path: Path, number: int, line: bytes) -> Approval:
    try:
        return _APPROVAL.validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "line"
        raise ConfigurationError(
            f"{path}: line {number}: {field}: {problem['msg']}; restore the file from a backup, or "
            "move it away and approve the study again"
        ) from None
