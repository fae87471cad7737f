"""The start kit: what a hospital gets from the coordinator before it has met it.

A zip with the CA's certificate, the address, the study and instructions. Nothing in it is secret,
but all of it is trusted: it has to come by a way on which nobody can exchange it.

    keys.json     with secure aggregation: every site's public key; see `read_roster`
    ca.crt        certificate of the coordinator's own authority
    kit.json      `Kit`
    study.json    the resolved study, byte for byte what its hash is taken of
    study.toml    the same for people, who decide by it; see `_check_text`
    README.txt    what to do, step by step
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Self, cast

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import model_validator

from hica.deployment.authority import check_authority
from hica.deployment.keys import PublicKey, parse_public
from hica.errors import ConfigurationError
from hica.storage import read_file, write_atomically
from hica.study import Name, Section, Sha256, Study, WrittenAs, read_toml, validated
from hica.study.differences import differences

CA_CERTIFICATE = "ca.crt"
KIT = "kit.json"
STUDY = "study.json"
TEXT = "study.toml"
ROSTER = "keys.json"

_COMMENT = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"{3,5}'
    r"|'''[\s\S]*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|(#[^\n]*)"
)
"""A comment of a TOML text, as group 1; strings of all four forms are passed over whole."""


class Kit(Section):
    """`kit.json`: whom to connect to, and what to expect there."""

    site: Name
    """The name under which the coordinator knows this hospital."""
    address: Annotated[
        str,
        WrittenAs(
            r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}",
            "host:port, an IPv6 host in brackets",
        ),
    ]
    """`host:port` of the coordinator; an IPv6 host in brackets."""
    study_sha256: Sha256
    bundle_sha256: Sha256
    hica: str
    """Version of hica that wrote the kit."""
    flwr: str
    """Version of Flower at the coordinator."""
    coordinator_key: str | None = None
    """The coordinator's public key, one line: its signature is on every request. Kits of earlier
    versions have none, and are refused; see `read_coordinator_key`."""
    keys_sha256: Sha256 | None = None
    """Of `keys.json`, where the study asks for secure aggregation."""
    ca_sha256: Sha256 | None = None
    """Of `ca.crt`; kits of earlier versions have none."""

    @model_validator(mode="after")
    def _port_exists(self) -> Self:
        if not 0 < self.port < 2**16:
            raise ValueError(f"address {self.address!r}: a port lies between 1 and 65535")
        return self

    @property
    def host(self) -> str:
        """Name or IP address of the coordinator, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """TCP port of the coordinator."""
        return int(self.address.rpartition(":")[2])


def write_kit(
    path: Path, kit: Kit, ca_pem: bytes, study: Study, roster: bytes | None = None
) -> None:
    """Write the zip for one hospital; the same content gives the same bytes.

    It holds `ca.crt`, `kit.json`, `study.json` and, where the study asks for secure aggregation,
    the roster `keys.json`.

    Raises:
        StorageError: It cannot be written.
    """
    kit = kit.model_copy(update={"ca_sha256": hashlib.sha256(ca_pem).hexdigest()})
    files = {
        CA_CERTIFICATE: ca_pem,
        KIT: kit.model_dump_json(indent=2, exclude_none=True).encode(),
        STUDY: study.canonical_json().encode(),
        TEXT: study_text(study).encode(),
        "README.txt": instructions(kit).encode(),
    }
    if roster is not None:
        files[ROSTER] = roster
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16  # may be unpacked by one user and read by another
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    write_atomically(path, buffer.getvalue(), mode=0o600)


def read_kit(folder: Path) -> tuple[Kit, Study]:
    """Read an unpacked kit and check that its parts belong together.

    Raises:
        ConfigurationError: A file is missing, damaged, of another kit, or of a version of hica
            that reads another study from it; the text for people is another study; or there is no
            key of the coordinator.
    """
    kit = validated(Kit, _json(folder, KIT), str(folder / KIT))
    check_authority(folder / CA_CERTIFICATE, _read(folder, CA_CERTIFICATE), kit.ca_sha256)
    read_coordinator_key(folder)
    if hashlib.sha256(_read(folder, STUDY)).hexdigest() != kit.study_sha256:
        raise ConfigurationError(
            f"{folder / STUDY}: is not the study that {KIT} names ({kit.study_sha256[:12]}); "
            "unpack the start kit anew, all files of it into one folder"
        )
    if kit.keys_sha256 is not None and roster_sha256(folder) != kit.keys_sha256:
        raise ConfigurationError(
            f"{folder / ROSTER}: is not the list of keys that {KIT} names "
            f"({kit.keys_sha256[:12]}); unpack the start kit anew, all files of it into one folder"
        )
    study = _study(folder, kit)
    _check_text(folder, study)
    if study.privacy.secure_aggregation and kit.keys_sha256 is None:
        raise ConfigurationError(
            f"{folder / KIT}: the study asks for secure aggregation, and the start kit has no list "
            "of the sites' keys; ask the coordinator for one with it"
        )
    return kit, study


def read_coordinator_key(folder: Path) -> EllipticCurvePublicKey:
    """The key by which a site knows its coordinator's requests; see `hica.wire.signature`.

    Raises:
        ConfigurationError: The kit is damaged, or has no such key.
    """
    path = folder / KIT
    text = validated(Kit, _json(folder, KIT), str(path)).coordinator_key
    if text is None:
        raise ConfigurationError(
            f"{path}: has no key of the coordinator, without which its requests cannot be told "
            "from those of others: ask the coordinator for a new start kit, made by "
            f"`hica-server provision` of hica {metadata.version('hica')}"
        )
    key = parse_public(text.encode(), f"{path}: coordinator_key")
    return cast(EllipticCurvePublicKey, load_pem_public_key(key.pem))


def study_text(study: Study) -> str:
    """`study.toml`: the resolved study as people read it; a line break in a text is one there."""
    table = study.model_dump(mode="json", exclude_none=True)
    returns = "\\r" in study.canonical_json()  # over several lines, "\r\n" would become "\n"
    return tomli_w.dumps(table, multiline_strings=not returns)


def roster_json(keys: Mapping[str, PublicKey]) -> bytes:
    """`keys.json`: every site's public key, by name; the same keys give the same bytes."""
    table = {site: key.openssh for site, key in sorted(keys.items())}
    return json.dumps(table, indent=2).encode()


def read_roster(folder: Path) -> dict[str, PublicKey]:
    """The public key of every site of a federation, from the folder of an unpacked kit.

    Sites know each other by these.

    Raises:
        ConfigurationError: It is missing or damaged, holds no key, or one key for two sites.
    """
    path = folder / ROSTER
    if not path.exists():
        raise ConfigurationError(
            f"{path}: missing, and secure aggregation needs every site's public key. Ask the "
            "coordinator for a start kit with it, made by `hica-server provision` after all "
            "sites were enrolled"
        )
    table = _json(folder, ROSTER)
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: no table of sites and keys; unpack the start kit anew")
    roster: dict[str, PublicKey] = {}
    for site, text in table.items():
        key = parse_public(str(text).encode(), f"{path}: {site}")
        for other, present in roster.items():
            if present.openssh == key.openssh:
                raise ConfigurationError(
                    f"{path}: {other} and {site} have the same key, so they are one site: tell the "
                    "coordinator and compare fingerprints by telephone"
                )
        roster[str(site)] = key
    return roster


def roster_sha256(folder: Path) -> str:
    """Hash of `keys.json`, which is approved with the study.

    Raises:
        ConfigurationError: The file is missing.
    """
    return hashlib.sha256(_read(folder, ROSTER)).hexdigest()


def instructions(kit: Kit) -> str:
    """`README.txt`: the way from this kit to a running site."""
    keys = f"\nSites' keys   {kit.keys_sha256}" if kit.keys_sha256 else ""
    return f"""\
Start kit of {kit.site}
{"=" * (len(kit.site) + 13)}

Coordinator   {kit.address}
Study         {kit.study_sha256}{keys}
HiCA          {kit.hica} (with Flower {kit.flwr})

Nothing in this kit is secret. It tells your machine whom to trust, so take it only from the
coordinator, and compare the study's hash above with them by telephone.

Your machine connects to the address above (TCP, TLS) and nothing connects to your machine: the
firewall needs one outgoing rule and no incoming one. Images never leave your machine.

 1. Install HiCA {kit.hica}, then write the files of your site:

        hica-client init hospital

 2. Unpack this kit into hospital/kit, and set in hospital/site.toml:

        [site]
        name = "{kit.site}"

 3. Fill in hospital/manifest.csv, and name your weights and folders in hospital/site.toml.

 4. Make your key. The private one stays at your hospital and is shown to nobody:

        hica-client keygen hospital/site.toml

 5. Send the public key, hospital/keys/site.pub, to the coordinator, and read its fingerprint to
    them by telephone.

 6. See whether all is well; every problem comes with its remedy:

        hica-client check hospital/site.toml

 7. Read study.toml. If your hospital agrees to exactly that study, say so:

        hica-client approve hospital/site.toml {kit.study_sha256[:12]}

 8. Take part, until the study has ended:

        hica-client run hospital/site.toml

    It ends by itself. The final model and your own test results then stay at your hospital:

        hica-client result hospital/site.toml

What left your site, at any time:   hica-client audit hospital/site.toml
"""


def _study(folder: Path, kit: Kit) -> Study:
    """Read the study of a kit and check that it means the same to this version of hica."""
    installed = metadata.version("hica")
    other_version = (
        f"{folder / STUDY}: hica {installed}, installed here, does not read the study that hica "
        f"{kit.hica} wrote there; install the version of the coordinator: {kit.hica}"
    )
    try:
        study = validated(Study, _json(folder, STUDY), str(folder / STUDY))
    except ConfigurationError as error:
        raise ConfigurationError(f"{other_version}\n{error}") from None
    if study.sha256 != kit.study_sha256:
        raise ConfigurationError(other_version)
    return study


def _check_text(folder: Path, study: Study) -> None:
    """Check that the text a person decides by is the study whose hash is approved.

    Raises:
        ConfigurationError: It is another study, names the first keys; or it has comments, which
            could promise what the study does not hold.
    """
    path = folder / TEXT
    found = _COMMENT.finditer(_read(folder, TEXT).decode(errors="replace"))
    comment = next((match.group(1) for match in found if match.group(1)), None)
    if comment is not None:
        raise ConfigurationError(
            f"{path}: has the comment {comment[:60]!r}, and what a comment says is no part of the "
            "study. No start kit has comments: unpack yours anew, or ask the coordinator for it"
        )
    told = validated(Study, read_toml(path), str(path))
    if words := differences(told, study, STUDY):
        raise ConfigurationError(
            f"{path}: is another study than {STUDY}, whose hash is approved: {words}. Do not "
            "approve it: unpack the start kit anew, and if it is so there, ask the coordinator why"
        )


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads(_read(folder, name))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{folder / name}: not JSON ({error}); unpack the start kit anew"
        ) from None


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_file(folder / name)
    except OSError as error:
        raise ConfigurationError(
            f"{folder / name}: cannot be read: {error.strerror}; unpack the coordinator's start "
            "kit there, or name its folder in federation.kit of the site file"
        ) from None
