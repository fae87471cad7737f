"""network_checks: can the coordinator be reached, is it the right one, do the clocks agree.

One connection as the client itself makes it, through the same proxy where one is set. What can go
wrong is told apart as the hospital's IT would look for it: name, port, TLS, certificate, clock.
"""

import base64
import http.client
import socket
import ssl
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from hica.deployment.kit import Kit
from hica.errors import ConfigurationError, FederationError, HicaError
from hica_client.flower_runner import signed_headers
from hica_client.preflight_report import Preflight

TIMEOUT = 10.0
"""Seconds a connection may take."""
FEW_DAYS = 30
"""A certificate that ends sooner is worth a note."""

MAX_AHEAD, MAX_BEHIND = 5.0, 305.0
"""Seconds: Flower refuses what was signed by a clock further ahead of its own, or behind it."""
UNSURE = 1.0
"""Seconds by which the difference of two clocks may be misjudged: HTTP tells whole seconds."""
FAIR_DIFFERENCE = 3.0
"""Seconds: two clocks kept by NTP are closer, with `UNSURE` allowed for."""

EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_IP = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_… of the same meaning."""


class ForeignCertificateError(FederationError):
    """Who answers there is not of the kit's authority; waiting does not mend that."""


@dataclass(frozen=True)
class Meeting:
    """What a connection to the coordinator showed."""

    certificate_days: float
    """Days until its certificate ends."""
    clock_ahead: float
    """Seconds by which this machine's clock is ahead of the coordinator's."""
    status: int
    """HTTP status of its health page."""
    enrolled: bool | None = None
    """Whether the key that it was asked about is enrolled; None: not asked, or it cannot tell."""


def check_network(
    found: Preflight, kit: Kit, ca: Path, key: EllipticCurvePrivateKey | None = None
) -> None:
    """Connect to the coordinator, trusting its authority `ca`, and note what is seen.

    With the site's `key` it is asked whether that is enrolled.
    """
    with found.gathering():
        meeting = meet(kit, ca, key)
        found.facts |= {
            "certificate_days": int(meeting.certificate_days),
            "clock_ahead_seconds": round(meeting.clock_ahead, 1),
        }
        if meeting.certificate_days < FEW_DAYS:
            found.notes.append(
                f"{kit.address}: the coordinator's certificate ends in "
                f"{int(meeting.certificate_days)} days; remind them to renew it in time"
            )
        if meeting.status != http.HTTPStatus.OK:
            found.notes.append(
                f"{kit.address}: the coordinator can be reached but is not ready (HTTP status "
                f"{meeting.status}); it may not have been started yet"
            )
        if abs(meeting.clock_ahead) > FAIR_DIFFERENCE:
            found.notes.append(_clock_words(meeting.clock_ahead))
        check_clock(meeting.clock_ahead)
        if meeting.enrolled is not None:
            found.facts["enrolled"] = meeting.enrolled
        if meeting.enrolled is False:
            found.notes.append(
                f"{kit.address}: the coordinator has not enrolled this site's key: send them the "
                "file ending in .pub, and compare its fingerprint with them by telephone"
            )


def check_clock(ahead: float) -> None:
    """Check that a clock `ahead` seconds ahead of the coordinator's is near enough for Flower.

    Raises:
        FederationError: The coordinator would refuse what this site signs.
    """
    if not UNSURE - MAX_BEHIND < ahead < MAX_AHEAD - UNSURE:
        raise FederationError(
            f"{_clock_words(ahead)}; the coordinator refuses a site that is {MAX_AHEAD:g} s ahead "
            f"or {MAX_BEHIND:g} s behind"
        )


def refuse_foreign(kit: Kit, ca: Path) -> None:
    """Connect once, as the client would go on to do without end.

    Raises:
        ForeignCertificateError: Who answers is not of the kit's authority `ca`.
    """
    try:
        meet(kit, ca)
    except ForeignCertificateError:
        raise
    except HicaError:  # may pass by itself; the client says it, too
        return


def meet(kit: Kit, ca: Path, key: EllipticCurvePrivateKey | None = None) -> Meeting:
    """Connect as the client does, ask for the health page, and whether a `key` is enrolled.

    Raises:
        ConfigurationError: The kit's certificate cannot be used.
        FederationError: The coordinator cannot be reached, or is not the kit's; says what to mend.
    """
    connection = _connection(kit, _trusting(ca))
    with closing(connection):
        _connect(connection, kit)
        certificate = cast(ssl.SSLSocket, connection.sock).getpeercert() or {}
        ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        try:
            connection.request("GET", "/health")
            asked = time.time()
            response = connection.getresponse()
            there = parsedate_to_datetime(response.headers["Date"]).timestamp()
            here = (asked + time.time()) / 2
            response.read()
            enrolled = _is_enrolled(connection, key) if key is not None else None
        except (OSError, http.client.HTTPException, TypeError, ValueError) as error:
            raise FederationError(
                f"{kit.address}: has the coordinator's certificate but gives no answer that HiCA "
                f"understands ({type(error).__name__}); ask whether its gateway is well"
            ) from None
    # The header names a second: on average the clock was half a second further.
    return Meeting((ends - here) / 86400, here - (there + 0.5), response.status, enrolled)


def _is_enrolled(
    connection: http.client.HTTPSConnection, key: EllipticCurvePrivateKey
) -> bool | None:
    """Ask on an open connection; who holds no enrolled key hears that there is no such page."""
    connection.request("GET", "/enrolled", headers=signed_headers(key))
    status = connection.getresponse().status
    return {204: True, 404: False}.get(status)


def _trusting(ca: Path) -> ssl.SSLContext:
    """TLS as the client speaks it: the kit's authority is trusted and no other."""
    try:
        return ssl.create_default_context(cafile=str(ca))
    except OSError as error:  # of which ssl.SSLError is one
        raise ConfigurationError(
            f"{ca}: is not a certificate ({error.strerror}); unpack the start kit anew"
        ) from None


def _connection(kit: Kit, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """A connection not made yet, through the proxy that the environment names for this host."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if proxy is None or urllib.request.proxy_bypass(kit.host):
        return http.client.HTTPSConnection(kit.host, kit.port, timeout=TIMEOUT, context=context)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    connection = http.client.HTTPSConnection(
        str(parts.hostname), parts.port or 80, timeout=TIMEOUT, context=context
    )
    connection.set_tunnel(kit.host, kit.port, headers)
    return connection


def _connect(connection: http.client.HTTPSConnection, kit: Kit) -> None:
    """Resolve, connect and shake hands; the error says which of them failed and what to do."""
    first = f"{connection.host}:{connection.port}"  # the proxy, where there is one
    try:
        connection.connect()
    except socket.gaierror as error:
        raise FederationError(
            f"{connection.host}: the name cannot be resolved ({error.strerror}); ask your IT for "
            "its DNS entry, or the coordinator whether the kit's address is right"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise _distrust(error, kit) from None
    except ssl.SSLError as error:
        raise FederationError(
            f"{kit.address}: does not speak TLS as expected ({error.reason}); another service is "
            "at that port, or a firewall changes what passes: ask your IT to leave it as it is"
        ) from None
    except TimeoutError:
        raise FederationError(
            f"{first}: no answer within {TIMEOUT:g} s; a firewall may drop the connection: ask "
            f"your IT to allow outgoing TCP to {kit.address}"
        ) from None
    except ConnectionRefusedError:
        raise FederationError(
            f"{first}: refuses the connection; the coordinator may not be running yet, or its "
            "port may have changed: ask them"
        ) from None
    except OSError as error:
        raise FederationError(
            f"{first}: cannot be reached ({error.strerror or error}); ask your IT to allow "
            f"outgoing TCP to {kit.address}"
        ) from None


def _distrust(error: ssl.SSLCertVerificationError, kit: Kit) -> HicaError:
    """Why the certificate shown is not that of the kit's coordinator, and who mends it."""
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if error.verify_code == EXPIRED:
        words = (
            f"the coordinator's certificate has expired (this machine's clock says {now}); if the "
            "clock is right, ask them to run: hica-server provision FOLDER --renew"
        )
    elif error.verify_code == NOT_YET_VALID:
        words = (
            f"the coordinator's certificate is not valid yet (this machine's clock says {now}); "
            "set the clock right, by NTP"
        )
    elif error.verify_code in (OTHER_NAME, OTHER_IP):
        words = (
            f"the certificate there is not for {kit.host}; ask the coordinator for a kit with the "
            "name in their certificate, or to set server.name and run: hica-server provision "
            "--renew"
        )
    else:
        words = (
            f"the certificate there is not from the kit's authority ({error.verify_message}); "
            "unpack the newest kit. If it is, something between opens the connection: ask your IT "
            "to except this address from TLS inspection"
        )
    foreign = error.verify_code not in (EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_IP)
    kind = ForeignCertificateError if foreign else FederationError
    return kind(f"{kit.address}: {words}")


def _clock_words(ahead: float) -> str:
    side = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead):.0f} s {side} the coordinator's: "
        "let NTP set it (timedatectl set-ntp true)"
    )
