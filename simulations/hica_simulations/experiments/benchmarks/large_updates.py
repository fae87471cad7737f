"""What updates of a whole large tower cost: peak memory of every process, seconds of a round.

All weights of a ViT-B/16 (86 million, drawn) are trained and sent in half precision. Peaks are the
kernel's own high-water marks (VmHWM): Python, torch and the tower itself are in them. What the
ServerApp starts is the process that makes the first weights; it ends before the first round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from hica.errors import FederationError
from hica_simulations.experiments.benchmarks.deployed import (
    new_deployment,
    serverapp_log,
    small_scenario,
    step_starts,
)
from hica_simulations.experiments.benchmarks.processes import (
    SERVER,
    Process,
    left_behind,
    megabytes,
    own_processes,
    repeating,
)
from hica_simulations.experiments.benchmarks.timing import Figure

SAMPLE_SECONDS = 0.25
"""A mark only rises, so what is missed is what a process does between the last look and its end."""
DEADLINE = 1200.0
"""Seconds that a round waits for its sites."""
LARGEST_RATIO = 4.0
"""Largest ratio of a server process's peak memory to the size of an update."""


@dataclass
class Peaks:
    """High-water mark of every process that was seen.

    Attributes:
        seen: Each process as last seen.
        look: Gives the processes there are.
    """

    seen: dict[int, Process] = field(default_factory=dict)
    look: Callable[[], list[Process]] = own_processes

    def take(self) -> None:
        """Look at all processes."""
        self.seen |= {process.pid: process for process in self.look()}

    def by_kind(self) -> dict[str, int]:
        """Largest peak of each kind, in bytes, in the order in which they were first seen."""
        largest: dict[str, int] = {}
        for each in self.seen.values():
            largest[each.kind] = max(each.peak, largest.get(each.kind, 0))
        return largest


def measure_large_updates(
    out: Path,
    sites: int = 3,
    rounds: int = 2,
    image: str = "ViT-B-16",
    precision: str = "half",
) -> list[Figure]:
    """Run a few rounds of a whole tower.

    Args:
        out: Folder for everything; must not exist.
        sites: Number of hospitals.
        rounds: Alignment rounds.
        image: The image tower, its weights drawn.
        precision: `federation.precision`: what updates are sent in.

    Raises:
        HicaError: The run has failed, or left a process behind.
    """
    scenario = small_scenario(
        "large updates",
        sites,
        rounds,
        {"image": image, "train": "full"},
        precision=precision,
        deadline=DEADLINE,
    )
    deployment = new_deployment(scenario, out / "run")
    peaks = Peaks()
    with repeating(peaks.take, SAMPLE_SECONDS):
        deployment.run()
    if left := left_behind(peaks.seen.values()):
        raise FederationError(f"still there after the end: {', '.join(left)}")
    starts = step_starts(serverapp_log(deployment.folder))
    return as_figures(update_bytes(deployment.result()), peaks.by_kind(), starts)


def update_bytes(result: Mapping[str, Any]) -> float:
    """Bytes of one site's update, from `result.json`."""
    entries = [entry for entry in result["rounds"] if entry["stage"] == "alignment"]
    return float(median(entry["bytes_up"] / len(entry["participants"]) for entry in entries))


def as_figures(
    update: float, peaks: Mapping[str, int], starts: Sequence[tuple[str, float]]
) -> list[Figure]:
    """Update, rounds and peaks.

    Args:
        update: Bytes of one update.
        peaks: Largest peak of each kind of process, in bytes.
        starts: Name of every step of the run, and when it began.
    """
    figures = [
        Figure("an update", megabytes(update), "MB"),
        Figure("a round", median(round_seconds(starts)), "s"),
    ]
    for kind, peak in peaks.items():
        limit = LARGEST_RATIO if kind in SERVER else None
        figures += [
            Figure(f"{kind}: peak memory", megabytes(peak), "MB"),
            Figure(f"{kind}: peak / update", peak / update, "×", below=limit),
        ]
    return figures


def round_seconds(starts: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds of the alignment rounds, from each one's start to the next step's."""
    return [
        ended - began for (name, began), (_, ended) in pairwise(starts) if name.startswith("align")
    ]
