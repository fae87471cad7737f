"""Every request is signed by the coordinator, and a site answers no other.

Flower tells who speaks to the SuperLink. It does not tell who wrote a message: a hospital with a
key of its own could send one to another hospital, in the coordinator's name. So the coordinator
signs each request with a key of its own, and its public key is in every start kit.

The signature is of the content (names, types and bytes of all records) and of what makes it this
request and no other: message type, run, node and group. A request that was signed for one site is
worth nothing at another, in another run, as another kind or in another round. The time is no part
of it: what one site may be asked again, the site itself decides.

It travels in a record of its own, so that the parts that all sites get are sent once. The hash of
the content is taken piece by piece, no array is copied, and one hash serves for all sites.
"""

import hashlib
import json

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ConfigRecord, Message, Metadata, RecordDict

from hica.errors import MessageError

RECORD = "signature"
"""Name of the record, and of its one entry."""
PURPOSE = "hica request"
"""The first word of what is signed: the key's signature of anything else is of no use here."""


def content_hash(content: RecordDict) -> bytes:
    """SHA-256 of all records but the signature; a record without entries counts as none.

    Each name and value comes with its length, so that no two contents give the same bytes.
    """
    hashed = hashlib.sha256()
    for name, record in sorted(content.items()):
        if name == RECORD or not record:
            continue
        pieces: list[bytes] = [_text(name, type(record).__name__, len(record))]
        for key, value in sorted(record.items()):
            if isinstance(value, Array):
                shape = [int(length) for length in value.shape]
                pieces += [_text(key, value.dtype, shape, value.stype), value.data]
            else:
                pieces.append(_text(key, repr(value)))  # another type is another text
        for piece in pieces:
            hashed.update(len(piece).to_bytes(8, "big"))
            hashed.update(piece)
    return hashed.digest()


def sign(key: ec.EllipticCurvePrivateKey, content: bytes, metadata: Metadata) -> bytes:
    """Signature of a request with this metadata, whose content has the hash `content`."""
    return key.sign(_signed(content, metadata), ec.ECDSA(hashes.SHA384()))


def with_signature(content: RecordDict, signature: bytes) -> RecordDict:
    """The content and its signature; all other records are shared, not copied."""
    return RecordDict({**content, RECORD: ConfigRecord({RECORD: signature})})


def verify(message: Message, key: ec.EllipticCurvePublicKey) -> None:
    """Check that a request was signed with the coordinator's key for this very site and run.

    Raises:
        MessageError: It was not, or anything of it is not what was signed.
    """
    if not message.has_content():
        raise MessageError(f"the request has no content and no signature{_REMEDY}")
    record = message.content.config_records.get(RECORD, ConfigRecord())
    signature = record.get(RECORD)
    if not isinstance(signature, bytes):
        raise MessageError(f"the request is not signed{_REMEDY}")
    signed = _signed(content_hash(message.content), message.metadata)
    try:
        key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise MessageError(
            f"the request is not signed for this site by the coordinator of its start kit{_REMEDY}"
        ) from None


_REMEDY = (
    ": somebody else may have sent it. If it comes from your coordinator, it has made a new key, "
    "or runs another version of HiCA: get a new start kit from it"
)


def _signed(content: bytes, metadata: Metadata) -> bytes:
    """The bytes that are signed."""
    return _text(
        PURPOSE,
        metadata.message_type,
        metadata.run_id,
        metadata.dst_node_id,
        metadata.group_id,
        content.hex(),
    )


def _text(*values: object) -> bytes:
    """A list in JSON: other values are another text."""
    return json.dumps(values).encode()
