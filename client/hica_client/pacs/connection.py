"""What both ways of asking a PACS need: password, TLS, and words for what the network says."""

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from hica.errors import ConfigurationError
from hica.storage import read_file
from hica_client.pacs.errors import PacsError
from hica_client.site import PacsSection

PASSWORD = "HICA_PACS_PASSWORD"
"""Environment variable that goes before `password_file`."""
AGAIN = "what is in the folder is whole, and the same command goes on"
EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_IP = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_… of the same meaning."""


@dataclass(frozen=True)
class Login:
    """User and password of a DICOMweb service; without a user the password is a bearer token."""

    user: str | None
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


def login(settings: PacsSection) -> Login | None:
    """What the site signs in with; None: nothing is set.

    Raises:
        ConfigurationError: There is a user without a password, or its file cannot be read.
    """
    password = os.environ.get(PASSWORD, "")
    if not password and settings.password_file is not None:
        password = _read(settings.password_file, "password_file").decode(errors="replace").strip()
    if password and not (password.isprintable() and password.isascii()):
        raise ConfigurationError(
            f"[pacs] password_file or {PASSWORD}: a password of ASCII letters, digits and signs in "
            "one line is needed"
        )
    if settings.user and not password:
        raise ConfigurationError(
            f"[pacs] user has no password: name its file in password_file, or set {PASSWORD}"
        )
    return Login(settings.user, password) if password else None


def tls_context(settings: PacsSection, *, server: bool = False) -> ssl.SSLContext:
    """What is trusted and shown; there is no way to connect without verifying the other side.

    Raises:
        ConfigurationError: A certificate or key cannot be read, or the two do not fit.
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    authority = settings.authority
    try:
        context = ssl.create_default_context(purpose, cafile=authority)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            f"[pacs] authority: {authority}: no certificates in PEM can be read there; ask the "
            "PACS's administrator for the certificate of its authority"
        ) from None
    if settings.certificate is not None and settings.key is not None:
        try:
            context.load_cert_chain(settings.certificate, settings.key, password=lambda: b"")
        except (OSError, ssl.SSLError, ValueError):
            raise ConfigurationError(
                f"[pacs] certificate, key: {settings.certificate} and {settings.key}: not a "
                "certificate and its key in PEM, without a password; name two that fit"
            ) from None
    elif server:
        raise ConfigurationError(
            "[pacs] certificate, key: the PACS sends over TLS (dicoms:), which needs a certificate "
            "of this site; set both, or have studies come by C-GET (--as without a port)"
        )
    if server and authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def probe(host: str, port: int, context: ssl.SSLContext | None, wait: float) -> None:
    """Connect and part, to learn why there was no association.

    Raises:
        PacsError: With what stands in the way, below DICOM.
    """
    try:
        with socket.create_connection((host, port), wait) as plain:
            if context is not None:
                _greet(plain, context, host)
    except OSError as error:
        raise PacsError(network_words(error)) from None


def _greet(plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
    """Begin TLS; who hangs up on that does not speak it."""
    try:
        with context.wrap_socket(plain, server_hostname=host):
            pass
    except (ConnectionError, TimeoutError):
        raise ssl.SSLEOFError from None


def network_words(error: BaseException) -> str:
    """Why a connection failed, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error)
    if isinstance(error, ssl.SSLError):
        if "WRONG_VERSION" in str(error) or "HTTP_REQUEST" in str(error):
            return (
                "answers without TLS; write the address with http: or dicom:, or give its TLS port"
            )
        if "ALERT" in str(error):
            return (
                "refuses this site's TLS; it may ask for a certificate (certificate and key in "
                "[pacs] of the site file): its administrator knows which"
            )
        return (
            "the TLS connection failed; this may not be its TLS port, or it takes no version of "
            "TLS that is secure: ask its administrator"
        )
    if isinstance(error, socket.gaierror):
        return "this name is not known here; check the address for a slip, and the name server"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; check host and port, and whether the PACS is running"
    if isinstance(error, TimeoutError):
        return "does not answer in time; check host and port, and the firewall between"
    if isinstance(error, ConnectionError):
        return f"the connection was closed; {AGAIN}"
    return "cannot be reached from this machine; check host, port and network"


def _certificate_words(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return "its certificate has run out, or is not valid yet; have it renewed, check the clock"
    if error.verify_code in (OTHER_NAME, OTHER_IP):
        return "its certificate is for another name; write the address with that name"
    return (
        "its certificate is not signed by anyone trusted here; set authority in [pacs] of the site "
        "file to the certificate (PEM) of the hospital's authority"
    )


def _read(path: Path, key: str) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"[pacs] {key}: {path}: cannot be read: {error.strerror}; name a file that this user "
            "may read"
        ) from None
