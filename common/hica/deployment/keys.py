"""Keys a site signs with: ECDSA P-384 in OpenSSH's format, which flower-supernode reads.

The private key is made at the hospital and never leaves it. The coordinator gets the public one
and compares its fingerprint with the hospital by telephone. The coordinator's own public key is
written in the same way, into the start kits.
"""

import base64
import codecs
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from hica.errors import ConfigurationError, StorageError
from hica.storage import read_file, write_atomically

ALGORITHM = "ecdsa-sha2-nistp384"
"""The first word of a public key file."""


@dataclass(frozen=True)
class PublicKey:
    """A site's public key.

    Attributes:
        openssh: One line without comment: `ecdsa-sha2-nistp384 AAAA…`.
        pem: What Flower's Control API registers.
    """

    openssh: str
    pem: bytes


def generate(path: Path) -> PublicKey:
    """Make a key pair: the private key at `path`, for its owner only, the public one beside it.

    Raises:
        ConfigurationError: One of the two files exists; neither is touched.
        StorageError: A file cannot be written; none stays behind.
    """
    public_file = public_path(path)
    for existing in (path, public_file):
        if existing.exists():
            raise ConfigurationError(
                f"{existing}: exists and is left alone. The coordinator knows the site by this "
                "key: move both files away first if a new pair is really meant"
            )
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = public_key(key.public_key())
    write_atomically(path, private, mode=0o600)
    try:
        write_atomically(public_file, f"{public.openssh}\n".encode())
    except StorageError:
        path.unlink()  # a pair or nothing
        raise
    return public


def public_path(path: Path) -> Path:
    """Where the public key of the private key at `path` lies: `site` → `site.pub`."""
    return path.with_name(f"{path.name}.pub")


def read_public(path: Path) -> PublicKey:
    """Read a public key file.

    Raises:
        ConfigurationError: It is missing, a private key, of another type, or no key.
    """
    try:
        return parse_public(read_file(path), str(path))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; name the site's file ending in .pub"
        ) from None


def parse_public(text: bytes, source: str) -> PublicKey:
    """Read the line of a public key; a comment at its end is passed over.

    `source` says where it is from, for the errors.

    Raises:
        ConfigurationError: It is a private key, a key of another type, or no key.
    """
    if b"PRIVATE KEY" in text:
        raise ConfigurationError(
            f"{source}: is a private key, which must never leave its hospital. Delete this copy; "
            "the hospital makes a new pair and sends only the file ending in .pub"
        )
    try:
        key = load_ssh_public_key(text.removeprefix(codecs.BOM_UTF8))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{source}: is no public key in OpenSSH's format; "
            "it is the file ending in .pub that `hica-client keygen` makes"
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigurationError(
            f"{source}: is a key of type {text.split()[0].decode()}, needed is {ALGORITHM}; "
            "make one with `hica-client keygen`"
        )
    return public_key(key)


def read_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key file; nobody but its owner may be able to read it.

    Raises:
        ConfigurationError: It is missing, open to others, or no such key.
    """
    try:
        mode, text = path.stat().st_mode, read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; make a key with `hica-client keygen`"
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"{path}: can be read by others. Run: chmod 600 {path}")
    try:
        key = load_ssh_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(
            f"{path}: is no {ALGORITHM} private key without passphrase in OpenSSH's format; "
            "make one with `hica-client keygen`"
        )
    return key


def check_pair(path: Path) -> PublicKey:
    """Check that the public key beside the private one at `path` is its own; returns it.

    Raises:
        ConfigurationError: One of the two cannot be used, or they are of two pairs.
    """
    own, lying = public_key(read_private(path).public_key()), read_public(public_path(path))
    if own != lying:
        raise ConfigurationError(
            f"{public_path(path)}: is not the public key of {path}: the coordinator would enroll "
            f"another key than this site signs with. Run: ssh-keygen -y -f {path} > "
            f"{public_path(path)}, and send that file again"
        )
    return own


def fingerprint(public: PublicKey) -> str:
    """`SHA256:…`, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public.openssh.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def public_key(key: ec.EllipticCurvePublicKey) -> PublicKey:
    """A public key as files hold it."""
    return PublicKey(
        openssh=key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        pem=key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
