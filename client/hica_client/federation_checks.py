"""federation_checks: the part of preflight about joining a coordinator, from kit to network."""

from importlib import metadata

from hica.deployment import keys
from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.flower_version import FLOWER, require_flower
from hica.deployment.kit import CA_CERTIFICATE, ROSTER, Kit, read_kit, read_roster
from hica.errors import ConfigurationError
from hica.study import Study
from hica_client.approval import approved
from hica_client.audit import verify
from hica_client.network_checks import check_network
from hica_client.policy import conflicts
from hica_client.preflight_report import Preflight
from hica_client.site import Site


def check_federation(found: Preflight, site: Site, offline: bool) -> Study | None:
    """Check kit, versions, key, policy, approval, audit log and, unless `offline`, the network.

    Returns the kit's study; None where the kit cannot be read.
    """
    key = None
    with found.gathering():
        found.facts["key"] = keys.fingerprint(keys.check_pair(site.federation.key))
        key = keys.read_private(site.federation.key)
    with found.gathering():
        verify(site.audit_log)
    with found.gathering():
        require_flower()
    with found.gathering():
        kit, study = read_kit(site.federation.kit)
        found.facts["coordinator"] = kit.address
        check_kit(found, site, kit)
        check_approval(found, site, study)
        if study.privacy.secure_aggregation:
            check_roster(found, site)
        if not offline:
            check_network(found, kit, site.federation.kit / CA_CERTIFICATE, key)
        return study
    return None


def check_kit(found: Preflight, site: Site, kit: Kit) -> None:
    """Check whom the kit is for and which versions it expects."""
    with found.gathering():
        check_name(site, kit)
    with found.gathering():
        check_noise(site, kit)
    with found.gathering():
        check_versions(kit)
    installed = metadata.version("hica")
    if kit.hica != installed:
        found.notes.append(
            f"the coordinator has hica {kit.hica}, this site {installed}: install the same to be "
            "sure of the same results"
        )


def check_noise(site: Site, kit: Kit) -> None:
    """Refuse noise that can be drawn again, but in a simulation on this machine.

    Raises:
        ConfigurationError: The coordinator could take the noise off.
    """
    if site.policy.noise == "seeded" and kit.host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigurationError(
            f'{site.file}: policy.noise = "seeded": anyone can draw that noise again and take it '
            'off what leaves here; it is for simulations on one machine. Set noise = "secure"'
        )


def check_name(site: Site, kit: Kit) -> None:
    """Compare the site's name with the one it is enrolled under.

    Raises:
        ConfigurationError: They differ; the coordinator would refuse the site.
    """
    if kit.site != site.site.name:
        raise ConfigurationError(
            f"{site.federation.kit}: is the kit of {kit.site!r}, but site.name is "
            f'{site.site.name!r}: set name = "{kit.site}" in {site.file}, or ask for your own kit'
        )


def check_versions(kit: Kit) -> None:
    """Compare what the coordinator runs with what is installed.

    Raises:
        ConfigurationError: They cannot work together.
    """
    if kit.flwr.split(".")[:2] != FLOWER.split("."):
        raise ConfigurationError(
            f"the coordinator has Flower {kit.flwr}, this site needs {FLOWER}: install hica "
            f"{kit.hica}, as the coordinator has"
        )
    if kit.bundle_sha256 != BUNDLE_SHA256:
        raise ConfigurationError(
            f"the coordinator's bundle is {kit.bundle_sha256[:12]}, this site runs "
            f"{BUNDLE_SHA256[:12]} only: install hica {kit.hica}, as the coordinator has"
        )


def check_roster(found: Preflight, site: Site) -> None:
    """Check that this site is on the list of keys by which the sites know each other."""
    with found.gathering():
        roster = read_roster(site.federation.kit)
        own = keys.read_public(keys.public_path(site.federation.key))
        found.facts["sites"] = ", ".join(roster)
        listed = roster.get(site.site.name)
        if listed is None or listed.openssh != own.openssh:
            raise ConfigurationError(
                f"{site.federation.kit / ROSTER}: does not list {site.site.name!r} with the key of "
                "this site, so the others would refuse it: send your public key to the coordinator "
                "and ask for a new start kit"
            )


def check_approval(found: Preflight, site: Site, study: Study) -> None:
    """Check that the policy allows the study and that it was approved."""
    found.problems += [
        ConfigurationError(f"{site.file}: {words}") for words in conflicts(site.policy, study)
    ]
    with found.gathering():
        found.facts["approved"] = approved(site, study.sha256)
        if not found.facts["approved"]:
            found.notes.append(
                "the kit's study is not approved yet; read it, then run: "
                f"hica-client approve {site.file} {study.sha256[:12]}"
            )
