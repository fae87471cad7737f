"""Who has withdrawn: the record of it, which names images by their hashes, and nobody by name."""

from dataclasses import dataclass

from hica_client.chain import Chain
from hica_client.site import Site

REMEDY = (
    "Restore it from a backup with its head. Without it a patient who withdrew may be taken in "
    "again; take the rows of all of them out of the manifest, then move both files away together"
)


@dataclass(frozen=True)
class Withdrawal:
    """The images of a patient who has withdrawn: the SHA-256 of each file."""

    time: str
    images: frozenset[str]


def withdrawn(site: Site) -> list[Withdrawal]:
    """All who have withdrawn.

    Raises:
        DataError: The record was changed or cut short.
        StorageError: It cannot be read.
    """
    entries = Chain(site.withdrawals, REMEDY).verify()
    return [Withdrawal(entry["time"], frozenset(entry["images"])) for entry in entries]
