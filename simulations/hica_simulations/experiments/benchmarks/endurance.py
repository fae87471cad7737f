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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from hica.errors import FederationError
from hica.progress import console
from hica_simulations.experiments.benchmarks.deployed import (
    new_deployment,
    small_scenario,
)
from hica_simulations.experiments.benchmarks.endurance_plot import plot
from hica_simulations.experiments.benchmarks.processes import (
    Process,
    left_behind,
    megabytes,
    repeating,
)
from hica_simulations.experiments.benchmarks.samples import Recorder, Sample, write_samples
from hica_simulations.experiments.benchmarks.timing import Figure

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
        kind: What the processes run.
        pids: How many processes of the kind there have been; more than run at once where one was
            restarted.
        resident: Mean resident memory over the processes, once settled and at the end.
        anonymous: Mean of the memory that belongs to no file, once settled and at the end.
        resident_growth: Growth of resident memory, of the process that has grown most, in per cent.
        anonymous_growth: Growth of the memory that belongs to no file, of the process in which it
            has grown most, in per cent.
    """

    kind: str
    pids: int
    resident: tuple[float, float]
    anonymous: tuple[float, float]
    resident_growth: float
    anonymous_growth: float


def growths(samples: Sequence[Sample], settled: int) -> list[Growth]:
    """Growth of every kind of which a process was there both times.

    Args:
        samples: The samples of a whole run.
        settled: Round from which on growth counts.
    """
    last = samples[-1].round
    begin, end = window(samples, settled), window(samples, last - WINDOW + 1)
    kinds = dict.fromkeys(each.kind for sample in samples for each in sample.processes)
    found = []
    for kind in kinds:
        before, after = _memories(begin, kind), _memories(end, kind)
        both = before.keys() & after.keys()
        if not both:
            continue
        residents = [(before[pid][0], after[pid][0]) for pid in both]
        anonymous = [(before[pid][1], after[pid][1]) for pid in both]
        found.append(
            Growth(
                kind,
                len({each.pid for s in samples for each in s.processes if each.kind == kind}),
                _means(residents),
                _means(anonymous),
                max(percent(*pair) for pair in residents),
                max(percent(*pair) for pair in anonymous),
            )
        )
    return found


def window(samples: Iterable[Sample], first: int) -> list[Sample]:
    """Samples of `WINDOW` rounds."""
    return [sample for sample in samples if first <= sample.round < first + WINDOW]


def database_at(samples: Sequence[Sample], number: int) -> float:
    """Bytes of the database at a round, or before the end where there are fewer rounds."""
    first = min(number, samples[-1].round - WINDOW + 1)
    return median(sample.database for sample in window(samples, first))


def percent(before: float, after: float) -> float:
    """Growth in per cent."""
    return 100 * (after / before - 1)


def _memories(samples: Sequence[Sample], kind: str) -> dict[int, tuple[float, float]]:
    """Median resident and anonymous bytes of each process of a kind, by its number."""
    seen: dict[int, list[Process]] = {}
    for sample in samples:
        for process in sample.processes:
            if process.kind == kind:
                seen.setdefault(process.pid, []).append(process)
    return {
        pid: (median(p.resident for p in each), median(p.anonymous for p in each))
        for pid, each in seen.items()
    }


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return mean(before for before, _ in pairs), mean(after for _, after in pairs)


def endure(out: Path, sites: int = 8, rounds: int = 200) -> list[Figure]:
    """Run a long study and see what grows.

    Args:
        out: Folder for everything; must not exist.
        sites: Number of hospitals.
        rounds: Alignment rounds, each one exchange.

    Returns:
        Growth of every kind of process, and the database's size.

    Raises:
        HicaError: The run has failed, or left a process behind.
    """
    settled = min(SETTLED, rounds // 3)
    scenario = small_scenario("endurance", sites, rounds, {"train": "adapter"})
    deployment = new_deployment(scenario, out / "run")
    recorder = Recorder(deployment.folder)
    try:
        with repeating(recorder.take, SAMPLE_SECONDS):
            deployment.run()
    finally:
        write_samples(recorder.samples, out)
    seen = {process.pid: process for each in recorder.samples for process in each.processes}
    if left := left_behind(seen.values()):
        raise FederationError(f"still there after the end: {', '.join(left)}")
    found = growths(recorder.samples, settled)
    marks = sorted({settled, rounds // 2, rounds})
    text = as_markdown(found, recorder.samples, settled, marks)
    (out / "table.md").write_text(text, encoding="utf-8")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    plot(recorder.samples, settled, out / "endurance.png")
    return as_figures(found, recorder.samples, settled, marks)


def as_figures(
    found: Sequence[Growth], samples: Sequence[Sample], settled: int, marks: Sequence[int]
) -> list[Figure]:
    """Growth of each kind of process, and the database's size.

    Args:
        found: Memory of each kind of process.
        samples: The samples of the whole run.
        settled: Round from which on growth counts.
        marks: Rounds at which the database's size is told.
    """
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
    """The table of a run.

    Args:
        found: Memory of each kind of process.
        samples: The samples of the whole run.
        settled: Round from which on growth counts.
        marks: Rounds at which the database's size is told.
    """
    last = samples[-1].round
    lines = [
        f"| process | of them | MB at round {settled} | at round {last} | growth, worst "
        "| anonymous MB | at the end | growth, worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        (rss, rss_end), (own, own_end) = each.resident, each.anonymous
        cells = [
            *(each.kind, str(each.pids)),
            *(f"{megabytes(rss):.1f}", f"{megabytes(rss_end):.1f}"),
            f"{each.resident_growth:+.1f} %",
            *(f"{megabytes(own):.1f}", f"{megabytes(own_end):.1f}"),
            f"{each.anonymous_growth:+.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sizes = [f"{megabytes(database_at(samples, mark)):.2f} MB at round {mark}" for mark in marks]
    largest = megabytes(max(sample.database for sample in samples))
    lines += ["", f"Database: {', '.join(sizes)}; at most {largest:.2f} MB."]
    lines += [f"{last} rounds in {samples[-1].seconds:.0f} s.", ""]
    return "\n".join(lines)
