"""Seeds in shares, and shares in envelopes that only their addressee can open.

Shamir 1979 over GF(2^128): any `threshold` of n shares give the seed, fewer tell nothing of it.
A share travels by way of the coordinator, under ChaCha20-Poly1305 with a key agreed by X25519
between the two sites, and bound to the session, sender and addressee.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hica.errors import MessageError

SEED_BYTES = 16
SHARE_BYTES = 16
DIGEST_BYTES = 32
"""Of a commitment."""
TAG_BYTES = 16
NONCE = bytes(12)
"""May be fixed: the key of an envelope seals that one only."""


def context(purpose: str, *parts: object) -> bytes:
    """Unambiguous bytes of what a key, a signature or an envelope is for."""
    return json.dumps(["hica secure sum 2", purpose, *parts], sort_keys=True).encode()


def new_seed() -> bytes:
    """16 bytes of the operating system's randomness."""
    return secrets.token_bytes(SEED_BYTES)


def derived(secret: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)


def private_key(seed: bytes, purpose: bytes) -> X25519PrivateKey:
    """The X25519 key of a seed."""
    return X25519PrivateKey.from_private_bytes(derived(seed, purpose))


def agreed(mine: X25519PrivateKey, theirs: bytes, site: str, purpose: bytes) -> bytes:
    """The key of 32 bytes that only two sites know, the same at both for the same purpose.

    It is made of one's private and the other's public key of 32 bytes; `site` is the other, for
    errors.

    Raises:
        MessageError: A public key that agrees with every other one.
    """
    try:
        shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise MessageError(f"the key of {site!r} is not one that may be agreed with") from None
    return derived(shared, purpose)


def split(seed: bytes, threshold: int, sites: Sequence[str]) -> dict[str, bytes]:
    """A share of a seed of 16 bytes for each site, of which `threshold` give the seed.

    Sites are sorted: the place in this list is where the polynomial is taken.
    """
    shares = Shamir.split(threshold, len(sites), seed, ssss=False)
    return {site: share for site, (_, share) in zip(sites, shares, strict=True)}


def combine(shares: Mapping[str, bytes], threshold: int, sites: Sequence[str]) -> bytes:
    """The seed of at least `threshold` shares by site; of wrong ones, something else.

    `threshold` and `sites` are as given to `split`.

    Raises:
        MessageError: Too few shares.
    """
    if len(shares) < threshold:
        raise MessageError(f"{len(shares)} shares of a seed that needs {threshold}")
    taken = sorted(shares)[:threshold]
    points = [(sites.index(site) + 1, shares[site]) for site in taken]
    combined = Shamir.combine(points, ssss=False)
    return bytes(combined)


def commitment(seed: bytes, purpose: bytes) -> bytes:
    """What tells a seed from any other and nothing about it: 32 bytes."""
    return hashlib.sha256(purpose + derived(seed, purpose)).digest()


def committed(shares: bytes, purpose: bytes) -> bytes:
    """What tells a pair of shares from any other, each by itself: 32 bytes for either.

    A share is 16 random bytes, so that this tells nothing about it.
    """
    one, other = shares[:SHARE_BYTES], shares[SHARE_BYTES:]
    return b"".join(
        hashlib.sha256(purpose + sign + each).digest()
        for sign, each in ((b"1", one), (b"2", other))
    )


def seal(content: bytes, key: bytes, purpose: bytes) -> bytes:
    """Encrypt and authenticate, 16 bytes longer; a key seals once."""
    return ChaCha20Poly1305(key).encrypt(NONCE, content, purpose)


def unseal(sealed: bytes, key: bytes, purpose: bytes) -> bytes:
    """What was sealed with this key for this purpose.

    Raises:
        MessageError: It was changed, or is another's.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, sealed, purpose)
    except InvalidTag:
        raise MessageError("was changed on its way, or is of another session") from None
