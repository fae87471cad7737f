"""Does a long run grow? Memory of every process and size of the database over many rounds.

Every few seconds each process of the deployment is looked at, and the files of the SuperLink's
database, together with the alignment round the run is in. What is left in `out`:

    processes.csv    seconds, round, kind, pid, resident, anonymous, peak (bytes)
    database.csv     seconds, round, bytes of all its files
    table.md         memory of each kind once settled and at the end, and the database
    endurance.png    both over the rounds
    run/             the deployment, its logs among it

A value "at round n" is a median over `WINDOW` rounds, as memory rises and falls within a round.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from hica.progress import console
from hica_simulations.experiments.benchmarks.deployed import new_deployment, small_scenario
from hica_simulations.experiments.benchmarks.endurance_plot import plot
from hica_simulations.experiments.benchmarks.processes import megabytes
from hica_simulations.experiments.benchmarks.samples import Recorder, Sample, write_samples
from hica_simulations.experiments.benchmarks.timing import Figure
from hica_simulations.experiments.pages import Table, markdown

SETTLED = 20
"""Round from which on nothing should grow; in short runs a third of their rounds."""
WINDOW = 5
"""Rounds over which a median is taken."""
SAMPLE_SECONDS = 2.0
LARGEST_GROWTH = 5.0
"""Most that memory may grow, in per cent."""


@dataclass(frozen=True)
class Growth:
    """Memory of a kind of process, in bytes, and by how much it has grown.

    Attributes:
        pids: How many processes of the kind there have been; more than run at once where one was
            restarted.
        resident, anonymous: Mean over the processes, once settled and at the end, of all memory and
            of that which belongs to no file.
        resident_growth, anonymous_growth: Growth of either, of the process in which it has grown
            most, in per cent.
    """

    kind: str
    pids: int
    resident: tuple[float, float]
    anonymous: tuple[float, float]
    resident_growth: float
    anonymous_growth: float


def endure(out: Path, sites: int, rounds: int) -> list[Figure]:
    """Run a study of many alignment rounds, each one exchange, and see what grows.

    Everything is left in `out`, a new folder.

    Raises:
        HicaError: The run has failed, or left a process behind.
    """
    settled = min(SETTLED, rounds // 3)
    scenario = small_scenario("endurance", sites, rounds, {"train": "adapter"})
    recorder = Recorder(new_deployment(scenario, out / "run"))
    samples = recorder.samples
    try:
        recorder.run(SAMPLE_SECONDS)
    finally:
        write_samples(samples, out)
    found = growths(samples, settled)
    marks = sorted({settled, rounds // 2, rounds})
    text = as_markdown(found, samples, settled, marks)
    (out / "table.md").write_text(text, encoding="utf-8")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    plot(samples, settled, out / "endurance.png")
    return as_figures(found, samples, settled, marks)


def growths(samples: Sequence[Sample], settled: int) -> list[Growth]:
    """Growth from the round `settled` on of every kind of which a process was there both times."""
    last = samples[-1].round
    begin, end = window(samples, settled), window(samples, last - WINDOW + 1)
    pids: dict[str, set[int]] = defaultdict(set)
    for process in (each for sample in samples for each in sample.processes):
        pids[process.kind].add(process.pid)
    found = []
    for kind, numbers in pids.items():
        before, after = _memories(begin, kind), _memories(end, kind)
        if both := before.keys() & after.keys():
            # Of each process, at both times, resident and anonymous: [P, 2, 2].
            sizes = np.array([(before[pid], after[pid]) for pid in both])
            resident, anonymous = sizes.mean(axis=0).T.tolist()
            worst = (100 * (sizes[:, 1] / sizes[:, 0] - 1)).max(axis=0).tolist()
            found.append(Growth(kind, len(numbers), tuple(resident), tuple(anonymous), *worst))
    return found


def window(samples: Iterable[Sample], first: int) -> list[Sample]:
    """Samples of `WINDOW` rounds."""
    return [sample for sample in samples if first <= sample.round < first + WINDOW]


def database_at(samples: Sequence[Sample], number: int) -> float:
    """Bytes of the database at a round, or before the end where there are fewer rounds."""
    first = min(number, samples[-1].round - WINDOW + 1)
    return median(sample.database for sample in window(samples, first))


def _memories(samples: Sequence[Sample], kind: str) -> dict[int, tuple[float, float]]:
    """Median resident and anonymous bytes of each process of a kind, by its number."""
    seen = defaultdict(list)
    for process in (each for sample in samples for each in sample.processes):
        if process.kind == kind:
            seen[process.pid].append((process.resident, process.anonymous))
    return {pid: tuple(map(median, zip(*sizes, strict=True))) for pid, sizes in seen.items()}


def as_figures(
    found: Sequence[Growth], samples: Sequence[Sample], settled: int, marks: Sequence[int]
) -> list[Figure]:
    """Growth of each kind of process after the round `settled`, the database at `marks`."""
    growth = f"growth after round {settled}"
    return [
        *(
            Figure(f"{each.kind}: {growth}", each.resident_growth, "%", below=LARGEST_GROWTH)
            for each in found
        ),
        *(
            Figure(f"database at round {mark}", megabytes(database_at(samples, mark)), "MB")
            for mark in marks
        ),
    ]


def as_markdown(
    found: Sequence[Growth], samples: Sequence[Sample], settled: int, marks: Sequence[int]
) -> str:
    """A run as a table, the database told at the rounds `marks`."""
    last = samples[-1].round
    header = ["process", "of them", f"MB at round {settled}", f"at round {last}", "growth, worst"]
    lines = [
        [
            *(each.kind, str(each.pids)),
            *(f"{megabytes(size):.1f}" for size in each.resident),
            f"{each.resident_growth:+.1f} %",
            *(f"{megabytes(size):.1f}" for size in each.anonymous),
            f"{each.anonymous_growth:+.1f} %",
        ]
        for each in found
    ]
    table = Table([*header, "anonymous MB", "at the end", "growth, worst"], lines)
    sizes = [f"{megabytes(database_at(samples, mark)):.2f} MB at round {mark}" for mark in marks]
    largest = megabytes(max(sample.database for sample in samples))
    return (
        f"{markdown(table, '---')}\nDatabase: {', '.join(sizes)}; at most {largest:.2f} MB.\n"
        f"{last} rounds in {samples[-1].seconds:.0f} s.\n"
    )
