"""Admission: whether a request comes from an enrolled site, and for the first time.

A SuperNode signs the time of each request, of a retry anew. Flower checks that signature too, but
only after it has read and parsed the whole body, and lets the same one pass again for five minutes.
Here it is checked before the body is read, and lets one request pass.
"""

import logging
from base64 import b64decode
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from time import time
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hica.errors import HicaError
from hica_server.enrolment import let_in
from hica_server.settings import Folder

logger = logging.getLogger("hica.gateway")

PUBLIC_KEY = b"flwr-public-key"
TIMESTAMP = b"flwr-timestamp"
SIGNATURE = b"flwr-signature"
"""Names of Flower's headers."""

OLDEST = 305.0
"""Seconds for which Flower takes a signature."""
NEWEST = -5.0
"""Seconds a site's clock may be ahead: Flower's bound, as a negative age."""
MEMORY = 200_000
"""Signatures remembered at most, some 30 MB; a site sends fewer than 2000 in five minutes."""


class RefusedError(Exception):
    """A request that is not passed on; `reason` is for the log, and for who asked.

    `status` is that of HTTP. A SuperNode ends itself at 401 and tries again at 502, 503 and 504.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Admission:
    """Tells enrolled sites from strangers, and a request from its replay.

    Only what an enrolled key has signed is remembered, so that a stranger can neither fill the
    memory nor push out of it what must not pass again. `ready` says whether the SuperLink knows the
    enrolled sites: it takes for strangers whom it does not, and a SuperNode that is told so ends.
    """

    def __init__(self, folder: Folder, ready: Callable[[], bool] = lambda: True) -> None:
        self._keys = _Keys(folder)
        self._ready = ready
        self._started = time()
        self._expiry: dict[int, float] = {}  # of each signature seen; the oldest first

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Name of the site that signed a request with these headers, names in lower case.

        Raises:
            RefusedError: 401 without a good and new signature of an enrolled key; 503 where it
                cannot be told whether it is one.
        """
        values = _values(headers)
        site, key = self._keys.find(_decoded(values, PUBLIC_KEY))
        if not self._ready():
            raise RefusedError(503, f"{site}: the server is starting")
        now, signed = time(), _time(values[TIMESTAMP])
        if not NEWEST < now - signed < OLDEST:
            raise RefusedError(401, f"{site}: its clock is {signed - now:+.0f} s off the server's")
        signature = _decoded(values, SIGNATURE)
        try:
            key.verify(signature, values[TIMESTAMP], ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise RefusedError(401, f"{site}: wrong signature") from None
        self._remember(site, signature, signed, now)
        return site

    def _remember(self, site: str, signature: bytes, signed: float, now: float) -> None:
        """Let a signature pass, once.

        Not the header is remembered: base64 can be written in several ways, and to a signature
        (r, s) anybody can make its twin (r, -s), which is as good. Both share r.
        """
        while self._expiry and next(iter(self._expiry.values())) <= now:
            del self._expiry[next(iter(self._expiry))]  # refused for its age by now
        r, _ = decode_dss_signature(signature)
        if r in self._expiry:
            raise RefusedError(401, f"{site}: the signature was used before")
        if signed <= self._started:
            # It may have been used before this process was started. The retry is signed anew.
            raise RefusedError(503, f"{site}: signed before the gateway was started")
        if len(self._expiry) >= MEMORY:
            raise RefusedError(503, f"{site}: too many requests")
        self._expiry[r] = now + OLDEST - NEWEST


class _Keys:
    """Keys of the enrolled sites, read again as soon as the file is another."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._version: tuple[int, int] | None = None
        self._sites: dict[bytes, tuple[str, ec.EllipticCurvePublicKey]] = {}

    def find(self, pem: bytes) -> tuple[str, ec.EllipticCurvePublicKey]:
        """Name and key of the enrolled site whose SuperNode sends `pem`."""
        try:
            self._refresh()
        except (HicaError, OSError) as error:
            logger.error("enrolled sites cannot be read: %s", error)
            raise RefusedError(503, "the enrolled sites cannot be read") from None
        if pem not in self._sites:
            raise RefusedError(401, "not the key of an enrolled site")
        return self._sites[pem]

    def _refresh(self) -> None:
        version = _version(self._folder.sites)
        if version == self._version:
            return
        pems = {name: site.key.pem for name, site in let_in(self._folder).items()}
        self._sites = {
            pem: (name, cast(ec.EllipticCurvePublicKey, load_pem_public_key(pem)))
            for name, pem in pems.items()
        }
        self._version = version


def _version(path: Path) -> tuple[int, int] | None:
    """Differs between any two contents of a file that is replaced and never written into."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _values(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The three headers of a signature, each there once: two could be read in two ways."""
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (PUBLIC_KEY, TIMESTAMP, SIGNATURE):
            if name in values:
                raise RefusedError(401, f"header {name.decode()} twice")
            values[name] = value
    for name in (PUBLIC_KEY, TIMESTAMP, SIGNATURE):
        if name not in values:
            raise RefusedError(401, f"header {name.decode()} missing")
    return values


def _decoded(values: dict[bytes, bytes], name: bytes) -> bytes:
    try:
        return b64decode(values[name], validate=True)
    except ValueError:
        raise RefusedError(401, f"header {name.decode()}: not base64") from None


def _time(text: bytes) -> float:
    """Seconds since 1970 of an ISO 8601 time with time zone."""
    try:
        moment = datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        raise RefusedError(401, f"header {TIMESTAMP.decode()}: not a time") from None
    if moment.tzinfo is None:
        raise RefusedError(401, f"header {TIMESTAMP.decode()}: without time zone")
    return moment.timestamp()
