"""Group: the sites of one secure sum, their keys, and what they sign of it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hica.deployment.keys import PublicKey
from hica.errors import MessageError
from hica.secure_sum.sharing import committed, context
from hica.secure_sum.wire import MOST_SITES, Promise, SignedKeys

FEWEST_SITES = 3
"""In a sum. Of two, each could take its own part off the sum, which it learns from the next
weights, and hold the other's; so no secret would be kept from anyone who is also a site."""

SIGNING = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True)
class Threshold:
    """How many sites a sum needs; of the study, so that sites and coordinator agree.

    Attributes:
        share: Of the sites that sent keys, those that must stay; above one half.
        fewest: Below this many there is no sum.
    """

    share: float
    fewest: int = FEWEST_SITES

    def threshold(self, sites: int) -> int:
        """How many of `sites` must stay to the end, and how many shares give a seed.

        Raises:
            MessageError: Too few sites, or more than there may be.
        """
        fewest = max(FEWEST_SITES, self.fewest)
        if sites < fewest:
            raise MessageError(
                f"a secure sum over {sites} sites, needed are {fewest}: of fewer, the sum would "
                "tell about single sites"
            )
        if sites > MOST_SITES:
            raise MessageError(f"a secure sum over {sites} sites, {MOST_SITES} are the most")
        # Above one half: two lists of survivors, each signed by that many, would share a site.
        needed = max(fewest, math.ceil(self.share * sites - 1e-9), sites // 2 + 1)
        return min(needed, sites)


@dataclass(frozen=True)
class Group:
    """All sites of a session and their keys, as all of them must see it.

    `study` is the study's SHA-256; `keys` are sorted by the sites' names; `threshold` sites must
    stay.
    """

    study: str
    session: str
    keys: Mapping[str, SignedKeys]
    threshold: int

    @property
    def sites(self) -> list[str]:
        """Names, sorted."""
        return list(self.keys)

    @cached_property
    def transcript(self) -> str:
        """Hash of all of it: bound into every key, envelope and signature of the session."""
        keys = [each.to_json() for each in self.keys.values()]
        return hashlib.sha256(
            context("group", self.study, self.session, self.threshold, keys)
        ).hexdigest()


def make_group(study: str, session: str, keys: Sequence[SignedKeys], terms: Threshold) -> Group:
    """The group of a session.

    Raises:
        MessageError: A site is in it twice, or there are too few.
    """
    names = [each.site for each in keys]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MessageError(f"{', '.join(twice)}: more than one key of the same site")
    table = {each.site: each for each in sorted(keys, key=lambda each: each.site)}
    return Group(study, session, table, terms.threshold(len(table)))


def keys_statement(study: str, session: str, site: str, share_key: bytes, mask_key: bytes) -> bytes:
    """What a site signs of its keys."""
    return context("keys", study, session, site, share_key.hex(), mask_key.hex())


def survivors_statement(
    transcript: str, question: str, dealers: Sequence[str], survivors: Sequence[str]
) -> bytes:
    """What a site signs of who is in the sum, and of what it is a sum."""
    return context("survivors", transcript, question, list(dealers), list(survivors))


def promise_statement(
    transcript: str, dealer: str, commitment: bytes, shares: Sequence[bytes]
) -> bytes:
    """What a site signs of what it deals."""
    return context("promise", transcript, dealer, commitment.hex(), [s.hex() for s in shares])


def promised(transcript: str, dealer: str, holder: str, shares: bytes) -> bytes:
    """The commitment to the pair of shares that one site deals to another."""
    return committed(shares, context("promised shares", transcript, dealer, holder))


def check_promise(group: Group, dealer: str, promise: Promise, registered: PublicKey) -> None:
    """Check that a site itself made this promise, in this session, to every site of the group.

    Raises:
        MessageError: It did not.
    """
    if len(promise.shares) != len(group.keys):
        raise MessageError(
            f"{dealer!r} has committed to shares for {len(promise.shares)} sites, there are "
            f"{len(group.keys)}"
        )
    statement = promise_statement(group.transcript, dealer, promise.commitment, promise.shares)
    if not is_signed(registered, promise.signature, statement):
        raise MessageError(
            f"what {dealer!r} commits to is not signed by its registered key for this session: "
            "somebody may be between the sites, or it has a new key and all need a new start kit"
        )


def pair_purpose(transcript: str, question: str, one: str, other: str) -> bytes:
    """What the mask of two sites is for; the same at both, if both were asked the same.

    Else the masks do not cancel, and the sum is noise: a coordinator that has one site train, and
    the others with a learning rate of zero, would otherwise have the one site's update.
    """
    return context("pairwise mask", transcript, question, *sorted((one, other)))


def self_purpose(transcript: str, site: str) -> bytes:
    """What a self-mask's seed is for."""
    return context("self mask", transcript, site)


def shares_purpose(transcript: str, sender: str, addressee: str) -> bytes:
    """What an envelope is for: shares of one site for one other."""
    return context("shares", transcript, sender, addressee)


def mask_key_purpose(session: str, site: str) -> bytes:
    """What a mask key's seed is for; the key is made before there is a group."""
    return context("mask key", session, site)


def verified(keys: SignedKeys, registered: PublicKey, study: str, session: str) -> None:
    """Check that a site itself made these keys, for this session.

    Raises:
        MessageError: It did not.
    """
    statement = keys_statement(study, session, keys.site, keys.share_key, keys.mask_key)
    if not is_signed(registered, keys.signature, statement):
        raise MessageError(
            f"the keys of {keys.site!r} are not signed by its registered key for this session: "
            "somebody may be between the sites, or it has a new key and all need a new start kit"
        )


def is_signed(registered: PublicKey, signature: bytes, statement: bytes) -> bool:
    """Whether a statement bears the signature of a registered key."""
    key = load_pem_public_key(registered.pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)  # parsed by hica.deployment.keys
    try:
        key.verify(signature, statement, SIGNING)
    except InvalidSignature:
        return False
    return True
