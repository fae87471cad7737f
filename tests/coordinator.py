"""A coordinator that signs its requests, for tests of sites."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from flwr.app import Message

from hica.deployment.keys import public_key
from hica.wire.signature import content_hash, sign, with_signature

KEY = ec.generate_private_key(ec.SECP384R1())
PUBLIC = public_key(KEY.public_key()).openssh
"""As in `kit.json`."""


def _authority() -> bytes:
    """Certificate of an authority that no server is of."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=100))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


CA = _authority()
"""As in `ca.crt`."""


def signed(message: Message, key: ec.EllipticCurvePrivateKey = KEY) -> Message:
    """The message, signed for where it goes."""
    signature = sign(key, content_hash(message.content), message.metadata)
    message.content = with_signature(message.content, signature)
    return message
