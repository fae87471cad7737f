"""Enrolled sites: whose public keys the coordinator lets in, kept in `federation/sites.json`.

A running server looks at the file: enrolling and revoking take effect at once. A revoked key never
comes back; a site that returns, or changes its key, makes a new one.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from hica.deployment.keys import PublicKey, fingerprint, parse_public, read_public
from hica.deployment.lockfile import hold
from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import Name, Section, validated
from hica_server.settings import Folder


class EnrolledSite(Section):
    """One site of `sites.json`."""

    public_key: str
    """One line in OpenSSH's format."""
    fingerprint: str
    """Of that key, as both sides compare it by telephone."""
    enrolled: str
    """Time (ISO 8601, UTC)."""
    revoked: str | None = None
    """Time, where the site is no longer let in."""

    @property
    def key(self) -> PublicKey:
        """The public key.

        Raises:
            ConfigurationError: The file was edited by hand and holds none here.
        """
        return parse_public(self.public_key.encode(), f"key {self.fingerprint} of sites.json")


class _SitesFile(Section):
    sites: dict[Name, EnrolledSite] = Field(default_factory=dict)
    retired: list[str] = Field(default_factory=list)
    """Fingerprints of revoked keys whose place another key has taken."""


def read_sites(folder: Folder) -> dict[str, EnrolledSite]:
    """Every site that was ever enrolled, revoked ones included, by name; none without the file.

    Raises:
        ConfigurationError: The file is damaged; says how to go on.
    """
    return dict(sorted(_read(folder.sites).sites.items()))


def let_in(folder: Folder) -> dict[str, EnrolledSite]:
    """The sites that are let in, those of `read_sites` less the revoked ones, by name.

    Raises:
        ConfigurationError: As `read_sites`.
    """
    return {name: site for name, site in read_sites(folder).items() if site.revoked is None}


def enroll(folder: Folder, name: str, public_key: Path) -> EnrolledSite:
    """Let a site in; to do so again with the same key changes nothing.

    `name` is `site.name` of the site's own file, `public_key` the file that the hospital sent.

    Raises:
        ConfigurationError: The name cannot be used, another key has it, another site has the key,
            the key was revoked, or the file holds no public key.
    """
    check_name(name)
    key = read_public(public_key)
    mark = fingerprint(key)
    with _editing(folder) as file:
        present = file.sites.get(name)
        if present is not None and present.revoked is None and present.fingerprint == mark:
            return present
        _check_free(file, name, mark, public_key)
        site = EnrolledSite(public_key=key.openssh, fingerprint=mark, enrolled=_now())
        if present is not None:
            file.retired.append(present.fingerprint)
        file.sites[name] = site
    return site


def revoke(folder: Folder, name: str) -> EnrolledSite:
    """Let a site in no longer, for good; to do so again changes nothing.

    Raises:
        ConfigurationError: No such site was enrolled; names those that were.
    """
    with _editing(folder) as file:
        if name not in file.sites:
            known = ", ".join(sorted(file.sites)) or "none"
            raise ConfigurationError(f"{name!r} is not enrolled in {folder.sites}; there: {known}")
        if file.sites[name].revoked is None:
            file.sites[name] = file.sites[name].model_copy(update={"revoked": _now()})
        return file.sites[name]


def lines(sites: Mapping[str, EnrolledSite]) -> list[str]:
    """Sites for a person: name, fingerprint, since when in or out."""
    if not sites:
        return ["nobody is enrolled"]
    width = max(map(len, sites))
    found = []
    for name, site in sites.items():
        state = f"revoked {site.revoked}" if site.revoked else f"enrolled {site.enrolled}"
        found.append(f"{name:<{width}}  {site.fingerprint}  {state}")
    return found


def check_name(name: str) -> None:
    """Check what a site is to be called.

    Raises:
        ConfigurationError: Says what is allowed.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ConfigurationError(
            f"site name {name!r}: up to 64 letters, digits and characters of ' _./+-', the first a "
            "letter or digit; it must be site.name of the hospital's site.toml"
        ) from None


def _check_free(file: _SitesFile, name: str, mark: str, source: Path) -> None:
    """Neither another site nor the past may have the key, nor another key the name."""
    retired = {site.fingerprint for site in file.sites.values() if site.revoked is not None}
    if mark in retired.union(file.retired):
        raise ConfigurationError(
            f"{source}: {mark} was revoked and cannot come back; "
            "the hospital makes a new key with `hica-client keygen` and sends that"
        )
    for other, site in file.sites.items():
        if site.fingerprint == mark:
            raise ConfigurationError(
                f"{source}: {mark} is enrolled already, as {other!r}; every site has a key of its "
                f"own. If {name!r} is the new name, the hospital makes a new key, too"
            )
    present = file.sites.get(name)
    if present is not None and present.revoked is None:
        raise ConfigurationError(
            f"{name!r} is enrolled with another key, {present.fingerprint}; "
            "revoke that one first if the hospital really changed its key"
        )


@contextmanager
def _editing(folder: Folder) -> Iterator[_SitesFile]:
    """The content of the file, written back unless an error is raised; one writer at a time."""
    with hold(folder.sites.with_suffix(".lock"), f"an edit of {folder.sites}"):
        file = _read(folder.sites)
        before = file.model_dump_json()
        yield file
        if file.model_dump_json() != before:
            write_atomically(folder.sites, file.model_dump_json(indent=2).encode())


def _read(path: Path) -> _SitesFile:
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        return _SitesFile()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error}); restore it from a backup, "
            "or delete it and enroll every site anew"
        ) from None
    return validated(_SitesFile, table, str(path))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
