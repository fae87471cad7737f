"""What the steps of a secure sum say to each other, as JSON for the headers of messages.

Everything is read strictly: exact fields, lower-case hexadecimal digits of an exact length, names
as a study may hold them. Nothing read here is trusted yet; `party` checks what it means.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from hica.errors import MessageError
from hica.secure_sum.sharing import DIGEST_BYTES, SHARE_BYTES, TAG_BYTES
from hica.wire.records import read_name

GROUP = "group"
"""In what a site says beside a refusal: names of the sites that a sum must be over, with commas."""
SESSION_BYTES = 16
KEY_BYTES = 32
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
SIGNATURE_BYTES = (64, 104)
"""Of ECDSA over P-384 in DER: shorter only with a chance that never comes up."""
MOST_SITES = 100
"""In one sum: every site is told the sealed shares of all and the commitments to them, which is
some 300 bytes for each pair."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class SignedKeys:
    """Exchange 0: a site's public keys of a session.

    Attributes:
        site: Whose.
        share_key: X25519, shares are sealed for it.
        mask_key: X25519, pairwise masks are agreed with it.
        signature: ECDSA P-384 with SHA-384 over `hica.secure_sum.party.keys_statement`.
    """

    site: str
    share_key: bytes
    mask_key: bytes
    signature: bytes

    def to_json(self) -> dict[str, str]:
        """For a header."""
        return {
            "site": self.site,
            "share_key": self.share_key.hex(),
            "mask_key": self.mask_key.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_json(cls, table: Any) -> Self:
        """Read from a header; a MessageError names the field that is wrong."""
        fields = _fields(table, "keys", {"site", "share_key", "mask_key", "signature"})
        return cls(
            read_name(fields["site"]),
            read_hex(fields["share_key"], "share_key", KEY_BYTES),
            read_hex(fields["mask_key"], "mask_key", KEY_BYTES),
            read_hex(fields["signature"], "signature", *SIGNATURE_BYTES),
        )


@dataclass(frozen=True)
class Promise:
    """What a dealer commits to, before anyone has a share: all hold its shares against it.

    Attributes:
        commitment: To its self-mask's seed.
        shares: To the two shares of each site of the group, in the order of names; its own, too.
        signature: ECDSA P-384 with SHA-384 over `hica.secure_sum.group.promise_statement`.
    """

    commitment: bytes
    shares: tuple[bytes, ...]
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        """For a header."""
        return {
            "commitment": self.commitment.hex(),
            "shares": [each.hex() for each in self.shares],
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_json(cls, table: Any) -> Self:
        """Read from a header; a MessageError names the field that is wrong."""
        fields = _fields(table, "promise", {"commitment", "shares", "signature"})
        shares = read_list(fields["shares"], "shares")
        return cls(
            read_hex(fields["commitment"], "commitment", DIGEST_BYTES),
            tuple(read_hex(each, "shares", 2 * DIGEST_BYTES) for each in shares),
            read_hex(fields["signature"], "signature", *SIGNATURE_BYTES),
        )


@dataclass(frozen=True)
class Deal:
    """Exchange 1: a site's sealed shares by addressee, and what it has committed to."""

    promise: Promise
    sealed: dict[str, bytes]

    def to_json(self) -> dict[str, Any]:
        """For a header."""
        return {"promise": self.promise.to_json(), "sealed": _hexed(self.sealed)}

    @classmethod
    def from_json(cls, table: Any) -> Self:
        """Read from a header; a MessageError names the field that is wrong."""
        fields = _fields(table, "shares", {"promise", "sealed"})
        return cls(
            Promise.from_json(fields["promise"]),
            read_table(fields["sealed"], "sealed", read_sealed),
        )


@dataclass(frozen=True)
class Unmasking:
    """Exchange 4: a site's shares of the seeds of others.

    Of each site in the sum it is that of the self-mask's seed, of each that dropped out that of the
    mask key's.
    """

    self_masks: dict[str, bytes]
    mask_keys: dict[str, bytes]

    def to_json(self) -> dict[str, Any]:
        """For a header."""
        return {"self_masks": _hexed(self.self_masks), "mask_keys": _hexed(self.mask_keys)}

    @classmethod
    def from_json(cls, table: Any) -> Self:
        """Read from a header; a MessageError names the field that is wrong."""
        fields = _fields(table, "shares", {"self_masks", "mask_keys"})
        return cls(
            read_table(fields["self_masks"], "self_masks", _share),
            read_table(fields["mask_keys"], "mask_keys", _share),
        )


def read_promises(value: Any) -> dict[str, Promise]:
    """What every dealer has committed to, by site; else a MessageError names the field."""
    return read_table(value, "promises", Promise.from_json)


def read_session(value: Any) -> str:
    """The number of a session, 32 hexadecimal digits; else a MessageError."""
    return read_hex(value, "session", SESSION_BYTES).hex()


def read_names(value: Any, field: str) -> tuple[str, ...]:
    """A list of different names, sorted; else a MessageError names the field."""
    names = [read_name(name) for name in read_list(value, field)]
    if names != sorted(set(names)):
        raise MessageError(f"{field}: names must be sorted, each of them once")
    return tuple(names)


def read_list(value: Any, field: str) -> list[Any]:
    """A list of at most `MOST_SITES`; else a MessageError names the field."""
    if not isinstance(value, list) or len(value) > MOST_SITES:
        raise MessageError(f"{field} is no list of at most {MOST_SITES} sites")
    return value


def read_table(value: Any, field: str, read: Callable[[Any], Value]) -> dict[str, Value]:
    """A table by site of at most `MOST_SITES`, sorted; else a MessageError names the field."""
    if not isinstance(value, dict) or len(value) > MOST_SITES:
        raise MessageError(f"{field} is no table of at most {MOST_SITES} sites")
    return {read_name(site): read(value[site]) for site in sorted(value)}


def signature_of(table: Any) -> bytes:
    """Exchange 3: a site's signature over who is in the sum; else a MessageError."""
    return read_signature(_fields(table, "survivors", {"signature"})["signature"])


def read_signature(value: Any) -> bytes:
    """A signature; else a MessageError."""
    return read_hex(value, "signature", *SIGNATURE_BYTES)


def read_sealed(value: Any) -> bytes:
    """An envelope; else a MessageError."""
    return read_hex(value, "sealed", SEALED_BYTES)


def read_hex(value: Any, field: str, fewest: int, most: int | None = None) -> bytes:
    """Bytes of an exact length, or of one between two; else a MessageError names the field."""
    most = fewest if most is None else most
    if not isinstance(value, str) or not re.fullmatch("([0-9a-f]{2})*", value):
        raise MessageError(f"{field}: not bytes in lower-case hexadecimal digits")
    if not fewest <= len(value) // 2 <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise MessageError(f"{field}: {len(value) // 2} bytes, expected {wanted}")
    return bytes.fromhex(value)


def _share(value: Any) -> bytes:
    return read_hex(value, "share", SHARE_BYTES)


def _fields(table: Any, what: str, names: set[str]) -> dict[str, Any]:
    """A table of exactly these fields."""
    if not isinstance(table, dict) or table.keys() != names:
        raise MessageError(f"{what}: no table of {', '.join(sorted(names))}")
    return table


def _hexed(table: dict[str, bytes]) -> dict[str, str]:
    return {site: value.hex() for site, value in table.items()}
