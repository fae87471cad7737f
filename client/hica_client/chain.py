"""Chain: a journal in which nothing can be changed, taken out or put in without being found.

Each line holds the hash of the one before, so that a line changed, taken out or put in breaks the
chain where it was done. A head beside the journal holds the last hash, so that a journal cut short
does not pass for a whole one. Whoever may write both files can still make a new chain.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from hica.errors import DataError
from hica.storage import write_atomically
from hica_client.journal import append_line, opened, read_lines, whole_lines

FIRST = "0" * 64
"""`previous` of the first entry."""

Entry = dict[str, Any]
"""What was written, with `n` (from 1), `time` (UTC), `previous` and `hash`."""


class TamperingError(DataError):
    """A chain that can no longer be trusted; `what` is wrong with it, without the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what


@dataclass(frozen=True)
class Head:
    """The last entry: its number, its hash, and bytes of the journal up to its end."""

    n: int = 0
    hash: str = FIRST
    size: int = 0
    note: Any = None
    """What is to be known of the entries even when they are gone; JSON. None: nothing."""


@dataclass(frozen=True)
class Chain:
    """A journal and its head.

    `remedy` says what to do about one that can no longer be trusted: the end of every error.
    """

    path: Path
    remedy: str

    @property
    def head_path(self) -> Path:
        """Where the head lies: `audit.head` for the journal `audit.jsonl`."""
        return self.path.with_suffix(".head")

    def verify(self) -> list[Entry]:
        """Read the journal and check every line of it.

        An unfinished last line after the head is what a crash leaves and is passed over: nothing
        was done on the strength of a line before it was whole.

        Raises:
            DataError: Names the first line that was changed, taken out or put in, or says that the
                journal was cut short.
            StorageError: It cannot be read.
        """
        head = self.read_head()  # before the journal, to which a running client may add
        entries: list[Entry] = []
        previous = FIRST
        for number, line in enumerate(read_lines(self.path), start=1):
            entry = self.entry(line, number, previous)
            entries.append(entry)
            previous = entry["hash"]
        if head is None and entries:
            raise self.tampered(f"{self.head_path}: missing beside a log of {len(entries)} entries")
        if head is not None:
            self._check_against_head(entries, head)
        return entries

    @contextmanager
    def held(self) -> Iterator["Tail"]:
        """Hold the journal alone, to append to it; makes what is missing of a new one.

        Raises:
            DataError: It was cut short or changed at its end, so that nothing may follow it.
            StorageError: The disk is full or the folder may not be written.
        """
        with opened(self.path) as file:
            yield Tail(self, file, self._caught_up(file))

    def read_head(self) -> Head | None:
        """The head; None where there is none.

        Raises:
            DataError: It is not what was written there.
            StorageError: It cannot be read.
        """
        lines = read_lines(self.head_path)
        if not lines and not self.head_path.exists():
            return None
        try:
            table = json.loads(lines[0])
            head = Head(int(table["n"]), str(table["hash"]), int(table["size"]), table.get("note"))
            if head.note is not None and lines[0] != _written(head):
                raise ValueError
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise self.tampered(f"{self.head_path}: is not what was written there") from None
        return head

    def entry(self, line: bytes, number: int, previous: str) -> Entry:
        """A line, checked against its own hash and its place in the chain.

        Raises:
            DataError: It was changed, or is at the wrong place.
        """
        place = f"{self.path}: line {number}"
        try:
            entry = json.loads(line)
        except ValueError:
            raise self.tampered(f"{place}: is not JSON") from None
        if not isinstance(entry, dict):
            raise self.tampered(f"{place}: is no JSON object")
        body = {name: value for name, value in entry.items() if name != "hash"}
        if line + b"\n" != sealed(body):
            raise self.tampered(
                f"{place}: was changed: it does not have the hash it was written with"
            )
        if entry.get("n") != number or entry.get("previous") != previous:
            raise self.tampered(
                f"{place}: is entry {entry.get('n')} and does not follow the line before it: lines "
                "were taken out or put in"
            )
        return entry

    def tampered(self, what: str) -> TamperingError:
        """What is wrong, with the remedy of this chain."""
        return TamperingError(what, self.remedy)

    def _check_against_head(self, entries: list[Entry], head: Head) -> None:
        """The journal may be ahead of its head, after a crash between the two, but not behind."""
        if len(entries) < head.n:
            raise self.tampered(
                f"{self.path}: ends after entry {len(entries)}, but {head.n} were written: cut "
                "short"
            )
        if head.n and entries[head.n - 1]["hash"] != head.hash:
            raise self.tampered(
                f"{self.path}: line {head.n}: has another hash than {self.head_path.name} noted: "
                "the log was written anew up to here"
            )

    def _caught_up(self, file: FileIO) -> Head:
        """Where the journal ends: the head moved past entries that a crash kept it from noting."""
        head = self.read_head()
        size = file.seek(0, os.SEEK_END)
        if head is None and size > 0:
            raise self.tampered(f"{self.head_path}: missing beside a log of {size} bytes")
        if head is None:
            head = Head()
            # First, so that a journal without a head is never left by a crash.
            write_head(self.head_path, head)
        if size < head.size:
            raise self.tampered(
                f"{self.path}: {size} bytes, but its {head.n} entries had {head.size}: cut short"
            )
        for line in whole_lines(file, since=head.size).split(b"\n")[:-1]:
            entry = self.entry(line, head.n + 1, head.hash)
            head = Head(head.n + 1, entry["hash"], head.size + len(line) + 1)
        return head


@dataclass
class Tail:
    """The end of a journal that is held, where entries are appended."""

    chain: Chain
    file: FileIO
    head: Head

    def append(self, fields: dict[str, Any], note: Callable[[Entry], Any] | None = None) -> str:
        """Write an entry of these fields (JSON) and return its hash; it is on disk then.

        `note` makes the head's note, given the entry.

        Raises:
            OSError: The line could not be written; `Chain.held` says it in words.
            StorageError: The head could not be written.
        """
        entry = numbered(fields, self.head.n + 1, self.head.hash)
        size = append_line(self.file, sealed(entry))
        self.head = Head(entry["n"], _hash(entry), size, note(entry) if note else None)
        write_head(self.chain.head_path, self.head)
        return self.head.hash


def numbered(fields: dict[str, Any], n: int, previous: str) -> Entry:
    """Make the n-th entry of `fields`, with the present time and still without its hash."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"n": n, "time": time, "previous": previous, **fields}


def sealed(entry: Entry) -> bytes:
    """An entry with its hash, as a line."""
    return canonical({**entry, "hash": _hash(entry)}) + b"\n"


def canonical(value: Any) -> bytes:
    """A value as JSON, in the only form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write_head(path: Path, head: Head) -> None:
    """Replace the head by a whole file that is on disk: a lost head would look like tampering.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    write_atomically(path, _written(head) + b"\n")


def _written(head: Head) -> bytes:
    """A head as a line; with a note it has a hash over all of it, for it must speak for itself."""
    table = {"n": head.n, "hash": head.hash, "size": head.size}
    if head.note is None:
        return json.dumps(table).encode()
    table["note"] = head.note
    return json.dumps({**table, "seal": _hash(table)}).encode()


def _hash(entry: Entry) -> str:
    """SHA-256 of an entry without its hash."""
    return hashlib.sha256(canonical(entry)).hexdigest()
