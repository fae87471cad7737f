"""Samples of a running deployment: its processes, and the size of its database, by round."""

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hica_server.progress import read_progress
from hica_server.settings import Folder
from hica_simulations.experiments.benchmarks.deployed import round_of
from hica_simulations.experiments.benchmarks.processes import Process, own_processes


@dataclass(frozen=True)
class Sample:
    """One look at everything.

    Attributes:
        seconds: Since the start of the run.
        round: Alignment round, from 1; 0 before the first.
        processes: All there were.
        database: Bytes of the database's files.
    """

    seconds: float
    round: int
    processes: Sequence[Process]
    database: int


@dataclass
class Recorder:
    """Takes samples of a running deployment.

    Attributes:
        folder: The coordinator's.
        samples: The samples taken so far, oldest first.
        look: Gives the processes of the deployment.
        clock: Seconds.
    """

    folder: Folder
    samples: list[Sample] = field(default_factory=list)
    look: Callable[[], list[Process]] = own_processes
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started = self.clock()

    def take(self) -> None:
        """Take a sample; between rounds, the last one is the present one."""
        before = self.samples[-1].round if self.samples else 0
        number = round_of(read_progress(self.folder)) or before
        size = database_size(self.folder.database)
        self.samples.append(Sample(self.clock() - self._started, number, self.look(), size))


def database_size(path: Path) -> int:
    """Bytes of a SQLite database with its log and index, which come and go."""
    sizes = []
    for file in path.parent.glob(f"{path.name}*"):
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:
            continue
    return sum(sizes)


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
