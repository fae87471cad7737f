"""What updates of a whole large tower cost: peak memory of every process, seconds of a round.

All weights of a ViT-B/16 (86 million, drawn) are trained and sent in half precision. Peaks are the
kernel's own high-water marks (VmHWM): Python, torch and the tower itself are in them. What the
ServerApp starts is the process that makes the first weights; it ends before the first round.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from hica_simulations.experiments.benchmarks.deployed import (
    new_deployment,
    round_seconds,
    serverapp_log,
    small_scenario,
    step_starts,
)
from hica_simulations.experiments.benchmarks.processes import SERVER, Process, megabytes
from hica_simulations.experiments.benchmarks.samples import Recorder, last_seen
from hica_simulations.experiments.benchmarks.timing import Figure

SAMPLE_SECONDS = 0.25
"""A mark only rises, so what is missed is what a process does between the last look and its end."""
DEADLINE = 1200.0
"""Seconds that a round waits for its sites."""
LARGEST_RATIO = 4.0
"""Largest ratio of a server process's peak memory to the size of an update."""


def measure_large_updates(out: Path, sites: int, rounds: int) -> list[Figure]:
    """Run a few alignment rounds of a whole tower; everything is left in `out`, a new folder.

    Raises:
        HicaError: The run has failed, or left a process behind.
    """
    model = {"image": "ViT-B-16", "train": "full"}
    federation = {"precision": "half", "deadline": DEADLINE}
    scenario = small_scenario("large updates", sites, rounds, model, **federation)
    deployment = new_deployment(scenario, out / "run")
    recorder = Recorder(deployment)
    recorder.run(SAMPLE_SECONDS)
    return as_figures(
        update_bytes(deployment.result()),
        peaks_of(last_seen(recorder.samples)),
        round_seconds(step_starts(serverapp_log(deployment.folder))),
    )


def update_bytes(result: Mapping[str, Any]) -> float:
    """Bytes of one site's update, from `result.json`."""
    entries = [entry for entry in result["rounds"] if entry["stage"] == "alignment"]
    return float(median(entry["bytes_up"] / len(entry["participants"]) for entry in entries))


def peaks_of(processes: Sequence[Process]) -> dict[str, int]:
    """Largest peak of each kind, in bytes, in the order of the processes."""
    largest: dict[str, int] = {}
    for each in processes:
        largest[each.kind] = max(each.peak, largest.get(each.kind, 0))
    return largest


def as_figures(update: float, peaks: Mapping[str, int], rounds: Sequence[float]) -> list[Figure]:
    """Bytes of an update, seconds of the rounds, and peaks in bytes by kind of process."""
    figures = [
        Figure("an update", megabytes(update), "MB"),
        Figure("a round", median(rounds), "s"),
    ]
    for kind, peak in peaks.items():
        limit = LARGEST_RATIO if kind in SERVER else None
        figures += [
            Figure(f"{kind}: peak memory", megabytes(peak), "MB"),
            Figure(f"{kind}: peak / update", peak / update, "×", below=limit),
        ]
    return figures
