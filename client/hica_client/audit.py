"""The audit log: a line for everything that left the site or was refused, chained by hashes.

Each line holds the hash of the one before, so that a line changed, taken out or put in breaks the
chain where it was done. `audit.head` beside the log holds the last hash, so that a log cut short
does not pass for a whole one. Whoever may write both files can still make a new chain: keep the
hash that `hica-client audit` prints where they cannot.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from hica.errors import DataError
from hica_client.journal import append_line, opened, read_lines, whole_lines

FIRST = "0" * 64
"""`previous` of the first entry."""

Entry = dict[str, Any]
"""An `Event` with `n` (from 1), `time` (UTC), `previous` and `hash`."""


@dataclass(frozen=True)
class Event:
    """Something that left the site, or was kept from leaving.

    Attributes:
        event: `message`: a request was handled; `application`: a bundle was looked at.
        decision: `sent`; `failed`: the site said in words why it could not; `refused`.
        reason: Why not, in the words that went to the coordinator.
        kind: Type of the request, if it is one of ours.
        round: Its round.
        study: SHA-256 of its study.
        run_id: Flower's number of the run.
        examples: Images that stand behind the reply.
        bytes: Of the reply's arrays and texts.
        arrays: What left: name → [shape, dtype, SHA-256 of the array as an .npy file].
        details: Names of the numbers and texts that left beside them.
        header: SHA-256 of the JSON that holds those.
    """

    event: str
    decision: str
    reason: str = ""
    kind: str = ""
    round: int = 0
    study: str = ""
    run_id: int = 0
    examples: int = 0
    bytes: int = 0
    arrays: dict[str, list[Any]] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    header: str = ""


@dataclass(frozen=True)
class Head:
    """The last entry: its number, its hash, and bytes of the log up to its end."""

    n: int = 0
    hash: str = FIRST
    size: int = 0


def append(path: Path, event: Event) -> str:
    """Write an event to the log; when this returns, it is on disk.

    Args:
        path: The log, `site.audit_log`.
        event: What happened.

    Returns:
        The entry's hash.

    Raises:
        DataError: The log was cut short or changed at its end, so that nothing may follow it.
        StorageError: The disk is full or the folder may not be written: what was to be logged must
            not leave.
    """
    with opened(path) as file:
        head = _caught_up(path, file)
        entry = {
            "n": head.n + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "previous": head.hash,
            **asdict(event),
        }
        line = _sealed(entry)
        size = append_line(file, line)
        head = Head(head.n + 1, _hash(entry), size)
        _write_head(path, head)
    return head.hash


def verify(path: Path) -> list[Entry]:
    """Read the log and check every line of it.

    An unfinished last line after the head is what a crash leaves and is passed over: nothing was
    sent before its line was whole.

    Raises:
        DataError: Names the first line that was changed, taken out or put in, or says that the log
            was cut short.
        StorageError: It cannot be read.
    """
    head = _read_head(path)  # before the log, to which a running client may add
    entries: list[Entry] = []
    previous = FIRST
    for number, line in enumerate(read_lines(path), start=1):
        entry = _entry(path, line, number, previous)
        entries.append(entry)
        previous = entry["hash"]
    if head is None and entries:
        raise _tampered(f"{_head_path(path)}: missing beside a log of {len(entries)} entries")
    if head is not None:
        _check_against_head(path, entries, head)
    return entries


def _check_against_head(path: Path, entries: list[Entry], head: Head) -> None:
    """The log may be ahead of its head, after a crash between the two, but not behind."""
    if len(entries) < head.n:
        raise _tampered(
            f"{path}: ends after entry {len(entries)}, but {head.n} were written: cut short"
        )
    if head.n and entries[head.n - 1]["hash"] != head.hash:
        raise _tampered(
            f"{path}: line {head.n}: has another hash than {_head_path(path).name} noted: the log "
            "was written anew up to here"
        )


def _caught_up(path: Path, file: FileIO) -> Head:
    """Where the log ends, its head moved past entries that a crash kept it from noting."""
    head = _read_head(path)
    size = file.seek(0, os.SEEK_END)
    if head is None and size > 0:
        raise _tampered(f"{_head_path(path)}: missing beside a log of {size} bytes")
    if head is None:
        head = Head()
        _write_head(path, head)  # first, so that a log without a head is never left by a crash
    if size < head.size:
        raise _tampered(
            f"{path}: {size} bytes, but its {head.n} entries had {head.size}: cut short"
        )
    for line in whole_lines(file, since=head.size).split(b"\n")[:-1]:
        entry = _entry(path, line, head.n + 1, head.hash)
        head = Head(head.n + 1, entry["hash"], head.size + len(line) + 1)
    return head


def _entry(path: Path, line: bytes, number: int, previous: str) -> Entry:
    """A line of the log, checked against its own hash and its place in the chain."""
    place = f"{path}: line {number}"
    try:
        entry = json.loads(line)
    except ValueError:
        raise _tampered(f"{place}: is not JSON") from None
    if not isinstance(entry, dict):
        raise _tampered(f"{place}: is no JSON object")
    body = {name: value for name, value in entry.items() if name != "hash"}
    if line + b"\n" != _sealed(body):
        raise _tampered(f"{place}: was changed: it does not have the hash it was written with")
    if entry.get("n") != number or entry.get("previous") != previous:
        raise _tampered(
            f"{place}: is entry {entry.get('n')} and does not follow the line before it: lines "
            "were taken out or put in"
        )
    return entry


def _canonical(entry: Entry) -> bytes:
    """The one way an entry is written."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def _hash(entry: Entry) -> str:
    """SHA-256 of an entry without its hash."""
    return hashlib.sha256(_canonical(entry)).hexdigest()


def _sealed(entry: Entry) -> bytes:
    """An entry with its hash, as a line."""
    return _canonical({**entry, "hash": _hash(entry)}) + b"\n"


def _head_path(path: Path) -> Path:
    """`audit.jsonl` → `audit.head`."""
    return path.with_suffix(".head")


def _read_head(path: Path) -> Head | None:
    """The head of a log; None where there is none."""
    file = _head_path(path)
    lines = read_lines(file)
    if not lines and not file.exists():
        return None
    try:
        table = json.loads(lines[0])
        return Head(int(table["n"]), str(table["hash"]), int(table["size"]))
    except (ValueError, KeyError, TypeError, IndexError):
        raise _tampered(f"{file}: is not what was written there") from None


def _write_head(path: Path, head: Head) -> None:
    """Replace the head by a whole file that is on disk: a lost head would look like tampering.

    Raises:
        OSError: For `opened`, which says it in words.
    """
    part = _head_path(path).with_suffix(".part")
    with part.open("wb") as file:
        file.write(json.dumps(asdict(head)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(_head_path(path))


def _tampered(what: str) -> DataError:
    """What is wrong, and what to do about a log that can no longer be trusted."""
    return DataError(
        f"{what}. Find out who changed it, and restore log and head from a backup; to begin a new "
        "log, move both away together and keep them"
    )
