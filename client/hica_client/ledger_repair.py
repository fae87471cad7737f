"""Repair of a damaged ledger: a new one that begins with all that was spent.

What was spent is proven twice: by the lines, each of which has its own hash, and by the head,
which notes the sum of all entries up to its own and has a hash, too. Of every kind of release the
larger of the two is carried on, and lines after the head are added. So any damage to one of the
two files takes nothing off.

Where the head is damaged, or lines after it are, entries may be lost that nothing in the two files
tells of. Then the audit log is the third witness: every `train.…` answer that left since the last
proven entry must be one of a proven entry. If not, nothing is repaired, for no number would be
known to be enough. What came since is decided by the order of the audit log, of which each charge
notes how far it was: a clock may be set back.

The new ledger takes the old one's place before its head does. Killed in between, old head and new
ledger contradict each other, and the next repair carries on the same sum.
"""

import contextlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hica.errors import DataError
from hica.storage import write_atomically
from hica.wire.messages import shown_round
from hica_client import audit
from hica_client.chain import (
    FIRST,
    Chain,
    Entry,
    Head,
    TamperingError,
    numbered,
    sealed,
    write_head,
)
from hica_client.journal import opened, read_lines
from hica_client.ledger import (
    Spending,
    answer,
    chain_of,
    merged,
    note_of,
    read_spendings,
    spendings,
    verify,
)


@dataclass(frozen=True)
class Proof:
    """What of a damaged ledger can be proven."""

    spent: list[Spending]
    """What was spent at least."""
    until: int
    """Entries of the audit log when the last entry was made before which none can be missing."""
    answers: list[list[object]]
    """The answers to which proven entries from then on belong."""
    is_whole: bool
    """Whether no entry after it can be missing, either."""


def repair(path: Path, audit_log: Path, user: str) -> list[Path]:
    """Begin a damaged ledger anew with what was spent; the damaged files are kept beside it.

    Returns these under their new names. Nothing is done, and none returned, where the ledger is
    whole, or where there is none and nothing shows that there was.

    Raises:
        DataError: What was spent cannot be proven, or the audit log was tampered with.
        StorageError: A file cannot be read or written.
    """
    with opened(path):
        damage = ""
        try:
            if verify(path):
                return []
        except TamperingError as error:
            damage = error.what
        proof = proven(path)
        if not proof.is_whole:
            _check_nothing_else_left(path, audit_log, proof)
        if not damage:
            return []
        return _begin_anew(path, proof, user, damage, audit.position(audit_log))


def proven(path: Path) -> Proof:
    """What of a ledger can be proven, whatever is damaged.

    Raises:
        StorageError: It cannot be read.
    """
    chain = chain_of(path)
    head, noted = _sound_head(chain)
    lines = [_sound_entry(chain, line) for line in read_lines(path)]
    entries = {entry["hash"]: entry for entry in lines if entry is not None}.values()
    later = {entry["n"]: entry for entry in entries if entry["n"] > head.n}
    spent = merged(
        [
            *_larger(noted, spendings(entry for entry in entries if entry["n"] <= head.n)),
            *spendings(entry for entry in entries if entry["n"] > head.n),
        ]
    )
    end = head.n
    while end + 1 in later:
        end += 1
    last = head.note or {"last": None}
    if end > head.n:
        last = note_of([later[end]])
    until = last.get("audited", 0)
    since = [answer(entry) for entry in entries if until <= entry.get("audited", 0)]
    if 0 < head.n == end and head.hash not in {entry["hash"] for entry in entries}:
        since.append(last["last"])
    ends_well = not lines or (lines[-1] is not None and lines[-1]["n"] <= end)
    return Proof(spent, until, since, is_whole=head.n > 0 and ends_well)


def _sound_head(chain: Chain) -> tuple[Head, list[Spending]]:
    """The head and the spending it notes; a head before all entries where it is damaged."""
    with contextlib.suppress(DataError, ValueError, TypeError, KeyError, AttributeError):
        head = chain.read_head()
        if head is not None and head.n and "last" in head.note:
            return head, read_spendings(head.note["spent"])
    return Head(), []


def _sound_entry(chain: Chain, line: bytes) -> Entry | None:
    """An entry that has the hash it was written with, wherever it stands; None for any other."""
    with contextlib.suppress(DataError, ValueError, TypeError, KeyError):
        entry = json.loads(line)
        n, audited = int(entry["n"]), int(entry.get("audited", 0))
        spendings([entry])
        return {**chain.entry(line, entry["n"], entry["previous"]), "n": n, "audited": audited}
    return None


def _larger(some: list[Spending], others: list[Spending]) -> list[Spending]:
    """Of every kind of release, the larger number of steps."""
    steps: dict[Spending, int] = {}
    for each in [*some, *others]:
        kind = replace(each, steps=1)
        steps[kind] = max(each.steps, steps.get(kind, 0))
    return [replace(kind, steps=count) for kind, count in steps.items()]


def _check_nothing_else_left(path: Path, audit_log: Path, proof: Proof) -> None:
    """Refuse where the audit log tells of replies that no proven entry belongs to."""
    told = audit.verify(audit_log)
    if proof.spent and not told:
        raise _unproven(path, f"{audit_log.name} is empty")
    proven_answers = Counter(map(str, proof.answers))
    for entry in told:
        is_release = entry["decision"] == "sent" and entry["kind"].startswith("train.")
        if not is_release or entry["n"] <= proof.until:
            continue
        key = str(answer(entry))
        if not proven_answers[key]:
            place = f"{entry['kind']}, round {shown_round(entry['round'])}, of {entry['time']}"
            raise _unproven(
                path, f"{audit_log.name} has an answer to {place}, for which no charge can be read"
            )
        proven_answers[key] -= 1


def _unproven(path: Path, why: str) -> DataError:
    """Why no number is known to be enough, and what to do then."""
    return DataError(
        f"{path}: what was spent cannot be proven: {why}. Restore ledger and head together from a "
        "backup made after the last answer. If there is none, count the budget of these patients "
        "as spent: take their images out of the manifest, and only then begin a new ledger for "
        "others by moving ledger, head and audit log away together and keeping them"
    )


def _begin_anew(path: Path, proof: Proof, user: str, damage: str, audited: int) -> list[Path]:
    """Keep the damaged files under new names and put the new ones in their place."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    head_path = chain_of(path).head_path
    kept = []
    for each in (path, head_path):
        if each.exists():
            copy = each.with_name(f"{each.stem}.damaged-{stamp}{each.suffix}")
            write_atomically(copy, each.read_bytes())
            kept.append(copy)
    fields = {
        "event": "repair",
        "user": user,
        "why": damage,
        "audited": audited,
        "carried": [asdict(each) for each in proof.spent],
        "kept": [each.name for each in kept],
    }
    line = sealed(numbered(fields, 1, FIRST))
    entry = json.loads(line)
    write_atomically(path, line)
    write_head(head_path, Head(1, entry["hash"], len(line), note_of([entry])))
    return kept
