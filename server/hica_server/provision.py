"""provision: the federation's own authority, the server's certificate, and a start kit per site.

The authority is made once and signs one thing, the server's certificate. Sites trust it alone, not
those of the machine's browser; they themselves are known by keys they make (`enrolment`). Another
key, made once, too, signs every request of the running server (`hica.wire.signature`).
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.keys import PublicKey, public_key
from hica.deployment.kit import Kit, roster_json, write_kit
from hica.errors import ConfigurationError
from hica.secure_sum.forms import threshold_of
from hica.storage import write_atomically
from hica.study import Study
from hica_server.enrolment import check_name, let_in
from hica_server.settings import Folder, ServerSettings

THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
CA_DAYS = 3650
CERTIFICATE_DAYS = 365
LEEWAY = timedelta(days=1)
"""Certificates begin that much before they are made: clocks of sites may be behind."""

RESTORE = (
    "restore the folder `federation` from a backup. Without one, stop the server, move "
    "`federation` and `service` away and provision anew: then every hospital needs its new start "
    "kit, and every site is enrolled again"
)


@dataclass(frozen=True)
class Provision:
    """What `provision` has left."""

    expires: datetime
    """End of the server's certificate."""
    renewed: bool
    """Whether it was made this time."""
    address: str
    """`host:port` that hospitals connect to."""
    kits: dict[str, Path]
    """Start kit of each site."""
    listed: list[str]
    """Sites on the list of keys, where the study asks for secure aggregation."""
    new_key: bool = False
    """Whether the key that requests are signed with was made anew for a federation there was."""

    def lines(self) -> list[str]:
        """What `provision` has left, in lines for a person."""
        made = "new" if self.renewed else "kept"
        lines = [
            f"certificate  {made}, good until {self.expires:%Y-%m-%d}",
            f"address      {self.address}, which hospitals connect to",
        ]
        if self.address.rpartition(":")[0] in THIS_MACHINE:
            lines.append(
                "Hospitals cannot connect to that: it is every machine's name for itself. Set "
                "server.name in server.toml, and provision again before you hand out kits."
            )
        if self.new_key:
            lines.append("signing key  new: start kits that were made before are of no use")
        lines += [f"start kit    {path}" for path in self.kits.values()]
        if self.listed:
            lines.append(f"keys of      {', '.join(self.listed)}")
            lines.append("Whenever that list has changed, every one of them needs its new kit.")
        if self.kits:
            lines.append("Hand each hospital its kit on a way on which nobody can exchange it.")
        return lines


def provision(
    folder: Folder,
    study: Study,
    settings: ServerSettings,
    sites: Sequence[str],
    renew: bool = False,
    days: int = CERTIFICATE_DAYS,
) -> Provision:
    """Make what is missing, and anew each time a start kit for each of `sites`.

    `renew` makes a new certificate even where there is one, for `days`; negative: already expired.

    Raises:
        ConfigurationError: A key or certificate that is there cannot be used, or has expired; the
            study asks for secure aggregation and sites are not enrolled.
        StorageError: A file cannot be written.
    """
    files = kit_files(folder, sites)
    roster = list_keys(folder, study, sites) if study.privacy.secure_aggregation else {}
    new_key = folder.ca_certificate.exists() and not folder.signing_key.exists()
    if not folder.ca_certificate.exists():
        make_authority(folder)
    renewed = renew or not _certified(folder, settings.server.name)
    if renewed:
        make_certificate(folder, settings.server.name, days)
    else:
        require_valid_certificate(folder)
    signer = public_key(_kept_key(folder.signing_key).public_key())
    ca = folder.ca_certificate.read_bytes()
    keys = None
    if roster:
        keys = roster_json(roster)
        write_atomically(folder.roster, keys)
    for site, path in files.items():
        write_kit(path, make_kit(settings, study, site, signer, keys), ca, study, keys)
    address = settings.public_address
    return Provision(expires(folder), renewed, address, files, list(roster), new_key)


def signing_key(folder: Folder) -> ec.EllipticCurvePrivateKey:
    """The key that every request is signed with.

    Raises:
        ConfigurationError: It is missing or damaged.
    """
    return _read_key(folder.signing_key)


def list_keys(folder: Folder, study: Study, sites: Sequence[str]) -> dict[str, PublicKey]:
    """The public keys of all enrolled sites, by which they will know each other.

    Those that get a kit, `sites`, must be among them.

    Raises:
        ConfigurationError: A site is not enrolled yet, or they are too few.
    """
    roster = {name: site.key for name, site in let_in(folder).items()}
    missing = [site for site in sites if site not in roster]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)}: not enrolled, and under privacy.secure_aggregation every start "
            "kit holds the keys of all sites. Have each hospital run `hica-client init` and "
            f"`hica-client keygen`, which need no kit, then: hica-server enroll {folder.root} "
            "SITE.pub --name SITE"
        )
    fewest = threshold_of(study).fewest
    if sites and len(roster) < fewest:
        raise ConfigurationError(
            f"{folder.sites}: {len(roster)} sites are enrolled, a secure sum of this study needs "
            f"{fewest}: enroll the others first, as their keys are in every start kit"
        )
    return roster


def expires(folder: Folder) -> datetime:
    """End of the server's certificate (UTC).

    Raises:
        ConfigurationError: It is missing or damaged.
    """
    return _server_certificate(folder).not_valid_after_utc


def kit_files(folder: Folder, sites: Sequence[str]) -> dict[str, Path]:
    """Where the kit of each site lies: no two names give the same file.

    Raises:
        ConfigurationError: A name cannot be used.
    """
    for site in sites:
        check_name(site)
    return {site: folder.kits / f"{quote(site, safe='+')}.zip" for site in sites}


def make_kit(
    settings: ServerSettings,
    study: Study,
    site: str,
    signer: PublicKey,
    keys: bytes | None = None,
) -> Kit:
    """What a site must know of this server, and of the list of keys that comes with it.

    `signer` is the public key to the signatures of its requests.
    """
    return Kit(
        site=site,
        address=settings.public_address,
        study_sha256=study.sha256,
        bundle_sha256=BUNDLE_SHA256,
        hica=metadata.version("hica"),
        flwr=metadata.version("flwr"),
        coordinator_key=signer.openssh,
        keys_sha256=None if keys is None else hashlib.sha256(keys).hexdigest(),
    )


def require_provisioned(folder: Folder) -> None:
    """Check that a server has the certificates and keys it needs.

    Raises:
        ConfigurationError: Names the missing file and the remedy.
    """
    for path in (folder.ca_certificate, folder.certificate, folder.key):
        if not path.exists():
            raise ConfigurationError(
                f"{path}: no such file; make it with: hica-server provision {folder.root}"
            )
    if not folder.signing_key.exists():
        raise ConfigurationError(
            f"{folder.signing_key}: no such file, and no site answers a request without its "
            f"signature. Restore it from a backup; or make it, and a new start kit for every "
            f"hospital, with: hica-server provision {folder.root} SITE..."
        )


def require_valid_certificate(folder: Folder) -> None:
    """Check that sites accept the server's certificate today.

    Raises:
        ConfigurationError: It has expired.
    """
    end = expires(folder)
    if end <= datetime.now(UTC):
        raise ConfigurationError(
            f"{folder.certificate}: expired on {end:%Y-%m-%d at %H:%M} UTC, no site can connect. "
            f"Run: hica-server provision {folder.root} --renew"
        )


def make_authority(folder: Folder) -> None:
    """Make the certificate of the federation's authority.

    A key that has lost its certificate is kept: kits already handed out stay good.
    """
    key = _kept_key(folder.ca_key)
    name = _name("HiCA federation")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA384())
    )
    write_atomically(folder.ca_certificate, certificate.public_bytes(Encoding.PEM))


def make_certificate(folder: Folder, host: str, days: int) -> None:
    """Make the server's certificate, of the key that is there or a new one, good for `days`.

    `host` is the DNS name or IP address that sites connect to.

    Raises:
        ConfigurationError: The authority's or the server's key is missing or damaged.
    """
    authority_key = _read_key(folder.ca_key)
    authority = _certificate(folder.ca_certificate, RESTORE)
    key = _kept_key(folder.key)
    hosts = dict.fromkeys([host, "localhost", "127.0.0.1"])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    certificate = (
        _builder(_name(host), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(map(_general_name, hosts)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    write_atomically(folder.certificate, certificate.public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """A certificate to be signed, with what those of authority and server have in common."""
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - LEEWAY)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    """A name of at most 64 characters, which is what X.509 allows; hosts are in the SANs."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certified(folder: Folder, host: str) -> bool:
    """Whether the server has a certificate for `host`, an expired one included."""
    if not folder.certificate.exists():
        return False
    extensions = _server_certificate(folder).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return _general_name(host) in names


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the private key at `path`; where there is none, make one for its owner only."""
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(path, pem, mode=0o600)
    return _read_key(path)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: no private key can be read ({error}); {RESTORE}"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: is not the key HiCA made; {RESTORE}")
    return key


def _server_certificate(folder: Folder) -> x509.Certificate:
    remedy = f"make a new one with: hica-server provision {folder.root} --renew"
    return _certificate(folder.certificate, remedy)


def _certificate(path: Path, remedy: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: no certificate can be read ({error}); {remedy}"
        ) from None
