"""A coordinator that signs its requests, for tests of sites."""

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message

from hica.deployment.keys import public_key
from hica.wire.signature import content_hash, sign, with_signature

KEY = ec.generate_private_key(ec.SECP384R1())
PUBLIC = public_key(KEY.public_key()).openssh
"""As in `kit.json`."""


def signed(message: Message, key: ec.EllipticCurvePrivateKey = KEY) -> Message:
    """The message, signed for where it goes."""
    signature = sign(key, content_hash(message.content), message.metadata)
    message.content = with_signature(message.content, signature)
    return message
