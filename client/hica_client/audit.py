"""The audit log: a line for everything that left the site or was refused, chained by hashes.

Lines follow each other as in `hica_client.chain`. Keep the hash that `hica-client audit` prints
where nobody can write who may write the log and `audit.head` beside it.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hica_client.chain import Chain, Entry

REMEDY = (
    "Find out who changed it, and restore log and head from a backup; to begin a new log, move "
    "both away together and keep them"
)


@dataclass(frozen=True)
class Event:
    """Something that left the site, or was kept from leaving."""

    event: str
    """`message`: a request was handled; `application`: a bundle was looked at."""
    decision: str
    """`sent`; `failed`: the site said in words why it could not; `refused`."""
    reason: str = ""
    """Why not, in the words that went to the coordinator."""
    kind: str = ""
    """Type of the request, if it is one of ours."""
    round: int = 0
    study: str = ""
    """SHA-256 of its study."""
    run_id: int = 0
    """Flower's number of the run."""
    examples: int = 0
    """Images that stand behind the reply."""
    bytes: int = 0
    """Of the reply's arrays and texts."""
    arrays: dict[str, list[Any]] = field(default_factory=dict)
    """What left: name → [shape, dtype, SHA-256 of the array as an .npy file]."""
    details: list[str] = field(default_factory=list)
    """Names of the numbers and texts that left beside them."""
    header: str = ""
    """SHA-256 of the JSON that holds those."""


def append(path: Path, event: Event) -> str:
    """Write an event to the log and return its hash; it is on disk then.

    Raises:
        DataError: The log was cut short or changed at its end, so that nothing may follow it.
        StorageError: The disk is full or the folder may not be written: what was to be logged must
            not leave.
    """
    with Chain(path, REMEDY).held() as tail:
        return tail.append(asdict(event))


def position(path: Path) -> int:
    """Number of the log's last entry; 0 where there is none.

    Raises:
        DataError: Its head was changed.
        StorageError: It cannot be read.
    """
    head = Chain(path, REMEDY).read_head()
    return head.n if head else 0


def verify(path: Path) -> list[Entry]:
    """Read the log and check every line of it.

    Raises:
        DataError: Names the first line that was changed, taken out or put in, or says that the log
            was cut short.
        StorageError: It cannot be read.
    """
    return Chain(path, REMEDY).verify()
