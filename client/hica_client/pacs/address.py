"""Where the PACS is, and who asks it: `dicom://AET@host:port` or `https://…`; `MYAET:11112`."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from hica.errors import ConfigurationError

FORMS = "https://pacs.hospital/dicom-web, or dicom://AETITLE@pacs.hospital:104"
PLAIN_PORT, TLS_PORT = 104, 2762
"""The DICOM standard's own (PS3.8 9.1)."""
_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")
"""An AE title: 1 to 16 printable ASCII characters without a backslash, no blanks around them."""


@dataclass(frozen=True)
class Web:
    """A DICOMweb service."""

    url: str
    """Root of the service, without a slash at its end."""

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.url.startswith("https:")

    @property
    def host(self) -> str:
        """Name or number of the machine."""
        return urlsplit(self.url).hostname or ""

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Node:
    """A DICOM node that is spoken to by DIMSE."""

    title: str
    """Its AE title."""
    host: str
    port: int
    encrypted: bool = False

    def __str__(self) -> str:
        return f"{'dicoms' if self.encrypted else 'dicom'}://{self.title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Own:
    """How this side is known at the PACS, and where it listens."""

    title: str
    host: str = "127.0.0.1"
    """The interface that the PACS may send studies to."""
    port: int | None = None
    """None: nothing listens, and studies come back on the connection that asks (C-GET)."""


def parse_source(text: str, origin: str) -> Web | Node:
    """The PACS that `text` names; `origin` is where it stands, for messages.

    Raises:
        ConfigurationError: It is no address, or holds a password.
    """
    parts = _split(text, origin, FORMS)
    if parts.scheme in ("http", "https"):
        if parts.username or parts.password:
            raise ConfigurationError(
                f"{origin}: no user or password in the address, where others can read it: set "
                "user and password_file in [pacs] of the site file"
            )
        if parts.query or parts.fragment or not parts.hostname:
            raise ConfigurationError(f"{origin}: not an address; write it as {FORMS}")
        return Web(text.rstrip("/"))
    if parts.scheme in ("dicom", "dicoms"):
        encrypted = parts.scheme == "dicoms"
        if not parts.username or not parts.hostname or parts.password or parts.path.strip("/"):
            raise ConfigurationError(f"{origin}: not an address; write it as {FORMS}")
        port = parts.port or (TLS_PORT if encrypted else PLAIN_PORT)
        return Node(_title(unquote(parts.username), origin), parts.hostname, port, encrypted)
    raise ConfigurationError(f"{origin}: not the address of a PACS; write it as {FORMS}")


def parse_own(text: str, origin: str) -> Own:
    """What `MYAET`, `MYAET:PORT` or `MYAET@ADDRESS:PORT` says.

    Raises:
        ConfigurationError: It says none of that, or names all interfaces.
    """
    form = "MYAET, MYAET:11112 or MYAET@10.0.0.5:11112"
    if "@" not in text:
        title, colon, port = text.partition(":")
        text = f"{title}@127.0.0.1{colon}{port}"
    title, _, where = text.rpartition("@")
    parts = _split(f"own://{where}", origin, form)
    if not parts.hostname or parts.path or (not parts.port and where != "127.0.0.1"):
        raise ConfigurationError(f"{origin}: write it as {form}")
    try:
        everywhere = ipaddress.ip_address(parts.hostname).is_unspecified
    except ValueError:
        everywhere = False
    if everywhere:
        raise ConfigurationError(
            f"{origin}: {parts.hostname} would listen on every network of this machine; name the "
            "one address of it that the PACS sends to"
        )
    return Own(_title(title, origin), parts.hostname, parts.port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(text: str, origin: str, form: str) -> SplitResult:
    """The parts of an address whose port is a number, if it has one."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(f"{origin}: not an address; write it as {form}") from None
    if not text.isprintable() or " " in text:
        raise ConfigurationError(f"{origin}: not an address; write it as {form}")
    return parts


def _title(text: str, origin: str) -> str:
    """`text`, which is an AE title."""
    if not _TITLE.fullmatch(text):
        raise ConfigurationError(
            f"{origin}: an AE title has 1 to 16 characters: ASCII letters, digits and signs "
            "without a backslash"
        )
    return text
