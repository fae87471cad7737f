"""The privacy ledger: what every private release has cost the site's patients, over all studies.

A release is charged here, on disk, before it is handed over. Whatever the study, run or round, all
charges compose, for they are about the same patients; one that would bring them beyond the site's
budget is refused before anything is written. A crash between charge and release leaves a charge
for what never left: the ledger may be a step too high for each crash, and is never too low.

Lines follow each other as in `hica_client.chain`. The head notes what was spent in all, so that a
ledger cut short still tells it (`hica_client.ledger_repair`). Two things are beyond it: ledger and
head taken back together to an older state, or away. Nothing in them shows that, so keep what
`hica-client ledger` prints, and look whether the audit log has more.

All entries have one unit. That of one image says less about a patient with several, and the two
do not add up to a statement about either.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from hica.errors import BudgetError, ConfigurationError, StorageError
from hica.privacy.accountant import Charge, epsilon
from hica_client.chain import Chain, Entry, Tail

REMEDY = (
    "Nothing private leaves until this is mended. Find out who changed it, then run `hica-client "
    "ledger SITE --repair`, which keeps what was spent"
)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Equal private releases of a study.

    Raises:
        ConfigurationError: A number outside its range.
    """

    study: str
    """SHA-256 of the study."""
    mechanism: Literal["gaussian", "sampled gaussian"]
    """`sampled gaussian`: of units drawn at random; `gaussian`: of all."""
    unit: Literal["patient", "image"]
    """Whose presence is hidden."""
    holds: str
    """Against whom, in words: `everyone`, or `the coordinator, of the sum over N sites`."""
    noise: Literal["secure", "seeded"]
    """`secure`: from the system's generator; `seeded`: can be drawn again, for simulations."""
    noise_multiplier: float
    """σ, standard deviation of the noise over the L2 sensitivity."""
    sampling_rate: float = 1.0
    """q, the probability with which a unit takes part."""
    steps: int = 1
    """How many."""

    def __post_init__(self) -> None:
        _ = self.charge  # which checks the numbers

    @property
    def charge(self) -> Charge:
        """These releases in the form that the accountant takes."""
        return Charge(self.noise_multiplier, self.sampling_rate, self.steps)


@dataclass(frozen=True, kw_only=True)
class Release(Spending):
    """A private release that is about to leave: the answer to one request."""

    run_id: int
    """Flower's number of the run."""
    round: int
    kind: str
    question: str
    """Hash of all that the answer depends on."""
    audited: int = 0
    """Entries of the audit log before it: their order is sure where the clock is not."""


_SPENDINGS = TypeAdapter(list[Spending])


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent, each as ε at a δ: by all studies together, and by one of them."""

    max_epsilon: float | None
    """The site's own (`policy.max_epsilon`); None: nobody has decided it, nothing may be spent."""
    delta: float
    study_epsilon: float
    """What was approved with the study."""
    study_delta: float

    def decided(self) -> float:
        """`max_epsilon`.

        Raises:
            ConfigurationError: Nobody has decided it.
        """
        if self.max_epsilon is None:
            raise ConfigurationError(
                "policy.max_epsilon: is not set, so that no private study is answered; whoever "
                "answers for the patients decides what all studies together may spend, and sets it "
                "in the site file"
            )
        return self.max_epsilon


def afford(path: Path, release: Release, budget: Budget) -> None:
    """Refuse what cannot be paid for, before anything is computed for it.

    Raises:
        BudgetError, ConfigurationError, DataError, StorageError: As `charge`.
    """
    most = budget.decided()
    with held(path):
        _check(path, verify(path), release, budget, most)


def charge(path: Path, release: Release, budget: Budget, again: bool = False) -> float:
    """Charge a release; when this returns, the charge is on disk and the release may leave.

    Returns ε of all that was spent, this release included.

    `again`: it was kept before, to be given to the same question; if it was charged then, it is not
    charged twice.

    Raises:
        BudgetError: The release would pass a budget; nothing was charged.
        ConfigurationError: There is no budget, or the ledger is kept for another unit.
        DataError: The ledger was changed or cut short.
        StorageError: It cannot be written: what was to be charged must not leave.
    """
    most = budget.decided()
    with held(path) as tail:
        entries = verify(path)
        paid = {(entry["study"], entry.get("question")) for entry in entries if "study" in entry}
        if again and (release.study, release.question) in paid:
            return epsilon((each.charge for each in spendings(entries)), budget.delta)
        after = _check(path, entries, release, budget, most)
        tail.append(
            {"event": "charge", **asdict(release)}, lambda entry: note_of([*entries, entry])
        )
    return after


def _check(
    path: Path, entries: list[Entry], release: Release, budget: Budget, most: float
) -> float:
    """Hold a release against both budgets; ε of all studies with it."""
    past = spendings(entries)
    if past and past[0].unit != release.unit:
        raise ConfigurationError(
            f"{path}: is kept by {past[0].unit}, the study's privacy.unit is {release.unit}: "
            f"ask the coordinator for privacy.unit = {past[0].unit!r}, or do not take part"
        )
    before, total = _grown(past, release, budget.delta)
    if total > most:
        raise BudgetError(
            f"{path}: this answer would bring ε from {before:.4g} to {total:.4g} at δ = "
            f"{budget.delta:g}, beyond policy.max_epsilon = {most:g}: these patients "
            "take part in no more of this study; only whoever answers for them may raise "
            "policy.max_epsilon in the site file"
        )
    own = [each for each in past if each.study == release.study]
    before, after = _grown(own, release, budget.study_delta)
    if after > budget.study_epsilon * (1 + 1e-9):
        raise BudgetError(
            f"{path}: this answer would bring what study {release.study[:12]} has spent from ε = "
            f"{before:.4g} to {after:.4g} at δ = {budget.study_delta:g}, beyond the "
            f"privacy.epsilon = {budget.study_epsilon:g} that was approved with it. To run it "
            "again, the coordinator gives it another name or seed; it is then approved as a new one"
        )
    return total


def _grown(past: list[Spending], release: Release, delta: float) -> tuple[float, float]:
    """ε before and after a release."""
    charges = [each.charge for each in past]
    return epsilon(charges, delta), epsilon([*charges, release.charge], delta)


def verify(path: Path) -> list[Entry]:
    """Read the ledger and check every line of it, and what its head notes.

    Raises:
        DataError: Names the first line that was changed, taken out or put in, or says that the
            ledger was cut short, or that it holds what this version does not write.
        StorageError: It cannot be read.
    """
    chain = chain_of(path)
    head = chain.read_head()  # before the ledger, to which a running client may add
    entries = chain.verify()
    for entry in entries:
        try:
            spendings([entry])
        except ValueError as error:
            raise chain.tampered(f"{path}: line {entry['n']}: {error}") from None
    if head is not None and head.n and head.note != note_of(entries[: head.n]):
        raise chain.tampered(f"{chain.head_path}: notes another spending than its {head.n} entries")
    return entries


def spendings(entries: Iterable[Entry]) -> list[Spending]:
    """What entries of a ledger cost; equal releases are joined into one.

    Raises:
        ValueError: An entry is not one of a ledger; says why.
    """
    tables = (
        entry.get("carried") if entry.get("event") == "repair" else [entry] for entry in entries
    )
    return merged(each for table in tables for each in read_spendings(table))


def merged(apart: Iterable[Spending]) -> list[Spending]:
    """Join equal releases into one each, in the order in which they first occur."""
    steps: Counter[Spending] = Counter()
    for each in apart:
        steps[replace(each, steps=1)] += each.steps
    return [replace(each, steps=count) for each, count in steps.items()]


def note_of(entries: list[Entry]) -> dict[str, Any]:
    """What the head says of entries that may be gone: all spending, and when the last was made."""
    last = entries[-1]
    note = {
        "time": last["time"],
        "last": answer(last),
        "spent": [asdict(each) for each in spendings(entries)],
    }
    # Entries of earlier versions do not say it.
    return note | {name: last[name] for name in ("audited",) if name in last}


def answer(entry: Entry) -> list[Any]:
    """Which answer an entry of ledger or audit log is about: study, run, round and kind."""
    return [entry.get(name) for name in ("study", "run_id", "round", "kind")]


def read_spendings(tables: Any) -> list[Spending]:
    """Spending as it was written; what else is in the tables is passed over.

    Raises:
        ValueError: It is not what was written; says why.
    """
    try:
        return _SPENDINGS.validate_python(tables)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
        raise ValueError(f"{field or 'entry'}: {problem['msg']}") from None
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


@contextmanager
def held(path: Path) -> Iterator[Tail]:
    """Hold the ledger alone, to append to it.

    Raises:
        DataError: It was cut short or changed at its end.
        StorageError: It cannot be written, or was repaired while this waited for it.
    """
    with chain_of(path).held() as tail:
        if not os.path.samestat(os.fstat(tail.file.fileno()), path.stat()):
            raise StorageError(f"{path}: was replaced by a repair; try again")
        yield tail


def chain_of(path: Path) -> Chain:
    """The chain of the ledger at `path`."""
    return Chain(path, REMEDY)
