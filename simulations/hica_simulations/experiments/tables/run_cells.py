"""Running of cells, in one process or in several: a repeat runs what is left."""

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from hica.deployment.lockfile import hold
from hica.device import repeatable
from hica.errors import HicaError
from hica.progress import console
from hica.study import Study
from hica.wire.checkpoint import write_json
from hica_client.app import forget_sessions
from hica_simulations.experiments.baselines.episode import Floats
from hica_simulations.experiments.baselines.federations import BaselineFederations
from hica_simulations.experiments.baselines.shots import ShotBaselines
from hica_simulations.experiments.tables.cells import (
    COSTS,
    LOCAL,
    METRICS,
    OURS,
    POOLED,
    ROW,
    WORST,
    Cell,
    Row,
    claim_cell,
    folder_of,
    is_finished,
    read_row,
)
from hica_simulations.partitions import build_sites
from hica_simulations.place import Place
from hica_simulations.predictions import Predictions, joined
from hica_simulations.run import PREDICTIONS, SCENARIO, silently, simulate, sources_of
from hica_simulations.scenario import Scenario
from hica_simulations.site_files import write_sites
from hica_simulations.text_banks import text_bank

Group = deque[list[Cell]]
"""Cells that have their texts in common, in parts that have their shots in common."""


def run_cells(
    cells: Sequence[Cell],
    place: Place,
    told: Callable[[int, str], None] = lambda *_: None,
    jobs: int = 1,
) -> list[Row]:
    """Run every cell that has not been run yet; returns a row a cell, in their order.

    Cells of one study and seed follow each other in one process, so that its texts are made once,
    until another process has nothing else left to do. `place.out` holds `cells/NAME` for each;
    `told` is called with the number of finished cells and the one that has just been finished;
    `jobs` are processes, one core each.

    Raises:
        FederationError: Another process runs cells in this folder.
        ConfigurationError: A finished cell is of another study or other settings.
    """
    with hold(place.out / "table.lock", f"a table in {place.out}"):
        for cell in cells:
            if is_finished(folder_of(place.out, cell)):
                claim_cell(place.out, cell)
        left = [cell for cell in cells if not is_finished(folder_of(place.out, cell))]
        groups, finished = _groups(left), len(cells) - len(left)
        if jobs > 1:
            # Seed by seed, so that early results are of all studies.
            groups.sort(key=lambda group: int(group[0][0].labels.get("seed", 0)))
            _in_processes(groups, replace(place, workers=1), told, finished, jobs)
        else:
            ordered = [cell for group in groups for part in group for cell in part]
            for number, cell in enumerate(ordered, start=finished + 1):
                run_cell(cell, place)
                told(number, cell.folder)
    return [read_row(place.out, cell) for cell in cells]


def _groups(cells: Sequence[Cell]) -> list[list[list[Cell]]]:
    """Cells by study and seed, whose texts are the same, and there by settings, whose shots are."""
    groups: dict[Any, dict[Any, list[Cell]]] = {}
    for cell in cells:
        group = groups.setdefault((cell.study, cell.labels.get("seed")), {})
        group.setdefault(cell.settings, []).append(cell)
    return [list(group.values()) for group in groups.values()]


def _in_processes(
    groups: Sequence[list[list[Cell]]],
    place: Place,
    told: Callable[[int, str], None],
    finished: int,
    jobs: int,
) -> None:
    """Parts of the groups, each in a process; no more are given out than are being run."""
    waiting = [cell for group in groups for part in group for cell in part]
    left = [Group(group) for group in groups]
    idle: list[Group | None] = [None] * jobs
    with ProcessPoolExecutor(jobs, get_context("spawn"), end_with_parent) as pool:
        pending: dict[Future[None], Group] = {}
        try:
            while pending or any(left):
                while idle and any(left):
                    group = next_group(left, idle.pop(), list(pending.values()))
                    pending[pool.submit(_run_group, group.popleft(), place)] = group
                done, _ = wait(pending, timeout=2.0, return_when=FIRST_COMPLETED)
                for future in done:
                    idle.append(pending.pop(future))
                    future.result()
                for cell in [cell for cell in waiting if is_finished(folder_of(place.out, cell))]:
                    waiting.remove(cell)
                    finished += 1
                    told(finished, cell.folder)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def next_group(left: Sequence[Group], last: Group | None, others: Sequence[Group]) -> Group:
    """What a process goes on with: its own group, one nobody is at, or the longest.

    At least one of the groups `left`, in the order they are to be begun, is not empty. The process
    had a part of `last`, and other processes are at `others`.
    """
    if last:
        return last
    if free := [group for group in left if group and not any(group is each for each in others)]:
        return free[0]
    return max(left, key=len)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has: killed, it cannot say so itself.

    What is left would run on, beside the same command given again and in the same folders.
    """
    if (parent := parent_process()) is None:
        return

    def wait_and_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _run_group(group: Sequence[Cell], place: Place) -> None:
    console.quiet = True
    for cell in group:
        run_cell(cell, place)


def run_cell(cell: Cell, place: Place) -> None:
    """Run one cell and leave its row; what cannot be run leaves the reason."""
    there = replace(place, out=folder_of(place.out, cell) / "run")
    row: Row = dict(cell.labels)
    started = time.monotonic()
    try:
        found, costs = _measured(cell, there)
    except HicaError as error:
        row |= dict.fromkeys((*METRICS, *WORST, *COSTS)) | {"error": str(error)}
    else:
        found.save(folder_of(place.out, cell) / PREDICTIONS)
        metrics = found.metrics()
        row |= {name: metrics[name] for name in (*METRICS, *WORST)}
        row |= {**dict.fromkeys(COSTS), "seconds": time.monotonic() - started, **costs}
        row["error"] = ""
    (folder_of(place.out, cell) / SCENARIO).unlink(missing_ok=True)  # of a study as it was before
    claim_cell(place.out, cell)
    write_json(folder_of(place.out, cell) / ROW, row)  # from now on it is finished
    forget_sessions()
    shutil.rmtree(there.out, ignore_errors=True)


def _measured(cell: Cell, place: Place) -> tuple[Predictions, dict[str, Any]]:
    """Predictions of a cell's method on the scenario's test images, and what it cost."""
    scenario = cell.scenario()
    if cell.method == OURS:
        started = time.monotonic()
        result = simulate(scenario, place, zero_shot=False)
        costs: dict[str, Any] = {"seconds": time.monotonic() - started}
        costs |= {name: sum(entry[name] for entry in result["rounds"]) for name in COSTS[1:]}
        if cell.measure is not None:
            costs |= cell.measure(scenario, place, result)
        return Predictions.load(place.out / PREDICTIONS), costs
    repeatable()
    if cell.method in (LOCAL, POOLED):
        folders = build_sites(scenario, place.data, place.out, place.cache)
        runs = BaselineFederations(scenario, folders, place, silently)
        found = place.out / "baselines" / cell.method
        if cell.method == POOLED:
            runs.pooled()
            return Predictions.load(found / PREDICTIONS), {}
        alone = [folder for folder in folders if folder.labelled and folder.test]
        for folder in alone:
            runs.local_only(folder)
        return joined([Predictions.load(found / folder.name / PREDICTIONS) for folder in alone]), {}
    return _baselines(cell, scenario, place).predictions(cell.method, sources_of(scenario)), {}


_BASELINES: dict[Any, tuple[ShotBaselines, tempfile.TemporaryDirectory[str]]] = {}
"""The baselines of the last scenario, for many cells differ in the baseline alone, and the folder
of their sites. It is kept as long as they are: the run directory of a cell goes with the cell."""


def _baselines(cell: Cell, scenario: Scenario, place: Place) -> ShotBaselines:
    key = (cell.study, cell.settings)
    if key not in _BASELINES:
        _BASELINES.clear()
        kept = tempfile.TemporaryDirectory(prefix="hica-")
        out = Path(kept.name)
        folders = build_sites(scenario, place.data, out, place.cache)
        files = write_sites(folders, out, place, scenario.study)

        def texts(study: Study, dim: int) -> Floats:
            return text_bank(study, dim, place.data).classes.numpy()

        _BASELINES[key] = ShotBaselines(scenario.study, files, texts), kept
    return _BASELINES[key][0]
