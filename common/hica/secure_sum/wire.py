"""What the steps of a secure sum say to each other, as JSON for the headers of messages.

Everything is read strictly: exact fields, lower-case hexadecimal digits of an exact length, names
as a study may hold them. Nothing read here is trusted yet; `party` checks what it means.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from hica.errors import MessageError
from hica.secure_sum.sharing import SHARE_BYTES, TAG_BYTES
from hica.study import Name

SESSION_BYTES = 16
KEY_BYTES = 32
COMMITMENT_BYTES = 32
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
SIGNATURE_BYTES = (64, 104)
"""Of ECDSA over P-384 in DER: shorter only with a chance that never comes up."""
MOST_SITES = 100
"""In one sum: every site is told the sealed shares of all, which is 100 bytes for each pair."""

_NAME = TypeAdapter(Name)
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
class Deal:
    """Exchange 1: a site's sealed shares by addressee; a commitment to its self-mask's seed."""

    commitment: bytes
    sealed: dict[str, bytes]

    def to_json(self) -> dict[str, Any]:
        """For a header."""
        return {"commitment": self.commitment.hex(), "sealed": _hexed(self.sealed)}

    @classmethod
    def from_json(cls, table: Any) -> Self:
        """Read from a header; a MessageError names the field that is wrong."""
        fields = _fields(table, "shares", {"commitment", "sealed"})
        return cls(
            read_hex(fields["commitment"], "commitment", COMMITMENT_BYTES),
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


def read_session(value: Any) -> str:
    """The number of a session, 32 hexadecimal digits; else a MessageError."""
    return read_hex(value, "session", SESSION_BYTES).hex()


def read_name(value: Any) -> str:
    """A site's name; else a MessageError."""
    try:
        return _NAME.validate_python(value, strict=True)
    except ValidationError:
        raise MessageError(f"{str(value)[:64]!r} is no name of a site") from None


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
