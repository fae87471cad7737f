"""Samples of a running deployment: its processes, and the size of its database, by round."""

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from hica.errors import FederationError
from hica_server.progress import read_progress
from hica_simulations.deployment import Deployment
from hica_simulations.experiments.benchmarks.deployed import round_of
from hica_simulations.experiments.benchmarks.processes import (
    Process,
    left_behind,
    own_processes,
    repeating,
)


@dataclass(frozen=True)
class Sample:
    """One look at everything.

    Attributes:
        seconds: Since the start of the run.
        round: Alignment round, from 1; 0 before the first.
        database: Bytes of the database's files.
    """

    seconds: float
    round: int
    processes: Sequence[Process]
    database: int


@dataclass
class Recorder:
    """Runs a deployment and takes samples of it, the oldest first."""

    deployment: Deployment
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = monotonic()

    def run(self, seconds: float) -> None:
        """Run the study to its end, with a sample every few seconds.

        Raises:
            HicaError: The run has failed, or left a process behind.
        """
        with repeating(self.take, seconds):
            self.deployment.run()
        if left := left_behind(last_seen(self.samples)):
            raise FederationError(f"still there after the end: {', '.join(left)}")

    def take(self) -> None:
        """Take a sample; between rounds, the last one is the present one."""
        folder = self.deployment.folder
        before = self.samples[-1].round if self.samples else 0
        number = round_of(read_progress(folder)) or before
        size = database_size(folder.database)
        elapsed = monotonic() - self._started
        self.samples.append(Sample(elapsed, number, own_processes(), size))


def last_seen(samples: Sequence[Sample]) -> list[Process]:
    """Every process there was as it was seen last, in the order in which they were first seen."""
    return list({each.pid: each for sample in samples for each in sample.processes}.values())


def database_size(path: Path) -> int:
    """Bytes of a SQLite database with its log and index, which come and go."""
    size = 0
    for file in path.parent.glob(f"{path.name}*"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def write_samples(samples: Sequence[Sample], out: Path) -> None:
    """Write `processes.csv` and `database.csv`."""
    with (out / "processes.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seconds", "round", "kind", "pid", "resident", "anonymous", "peak"])
        for sample in samples:
            for each in sample.processes:
                memory = (each.resident, each.anonymous, each.peak)
                rows.writerow([f"{sample.seconds:.1f}", sample.round, each.kind, each.pid, *memory])
    with (out / "database.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seconds", "round", "bytes"])
        rows.writerows([f"{s.seconds:.1f}", s.round, s.database] for s in samples)
