import json
import math
import os
import select
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hica.deployment.lockfile import hold
from hica.errors import ConfigurationError, FederationError
from hica_simulations.experiments.tables import run_cells as running
from hica_simulations.experiments.tables.cells import (
    COSTS,
    METRICS,
    WORST,
    Cell,
    predictions_of,
)
from hica_simulations.experiments.tables.run_cells import Group, next_group, run_cells
from hica_simulations.place import Place
from hica_simulations.predictions import Predictions
from hica_simulations.run import PREDICTIONS, SCENARIO

STUDY = """
[study]
name = "s"
[[classes]]
name = "a"
prompts = ["an a"]
[[classes]]
name = "b"
prompts = ["a b"]
[[simulation.sites]]
name = "north"
manifest = "m.csv"
"""
PHANTOMS = """
[study]
name = "phantoms"
[model]
train = "adapter"
[[classes]]
name = "normal"
healthy = true
prompts = ["parallel layers of tissue"]
[[classes]]
name = "smooth"
prompts = ["an oval mass with a smooth margin"]
[[classes]]
name = "spiculated"
prompts = ["a mass with a spiculated margin"]
[text]
epochs = 1
[pretraining]
rounds = 0
[alignment]
shots = 3
rounds = 1
local_epochs = 1
views = 1
[calibration]
rounds = 0
[federation]
min_count = 1
[simulation.phantoms]
modality = "ultrasound"
per_class = 6
size = 48
[[simulation.sites]]
name = "north"
[[simulation.sites]]
name = "south"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def phantoms(tmp_path):
    path = tmp_path / "phantoms.toml"
    path.write_text(PHANTOMS)
    return path


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, tmp_path / "out", tmp_path / "cache", device="cpu")


@pytest.fixture
def simulated(monkeypatch):
    """Federations that are quick: of ten images, as many are right as the seed; what was asked."""
    seen = []

    def simulate(scenario, there, zero_shot):
        seed = scenario.study.study.seed
        seen.append((seed, there.out, there.cache, zero_shot))
        labels = np.arange(10) % 2
        chosen = np.where(np.arange(10) < seed, labels, 1 - labels)
        found = Predictions(np.eye(2)[chosen], labels, list("abcdefghij"), ["north"] * 10)
        found.save(there.out / PREDICTIONS)
        entry = {"bytes_up": 1, "bytes_down": seed}
        return {"rounds": [entry, entry]}

    monkeypatch.setattr(running, "simulate", simulate)
    return seen


def test_every_cell_is_run_with_its_own_settings_in_its_own_folder(file, place, simulated):
    told = []
    made = [Cell({"seed": n}, file, {"study": {"seed": n}}) for n in (3, 4)]
    rows = run_cells(made, place, lambda number, folder: told.append((number, folder)))
    folder = place.out / "cells"
    assert simulated == [(n, folder / str(n) / "run", place.cache, False) for n in (3, 4)]
    assert told == [(1, "3"), (2, "4")]
    assert [row["accuracy"] for row in rows] == [0.3, 0.4]
    assert [(row["bytes_up"], row["bytes_down"]) for row in rows] == [(2, 6), (2, 8)]
    assert set(rows[0]) == {"seed", *METRICS, *WORST, *COSTS, "error"}
    assert rows[0]["error"] == "" and rows[0]["seconds"] >= 0


def test_a_cell_leaves_its_row_and_its_predictions_alone(file, place, simulated):
    cell = Cell({"seed": 3}, file, {"study": {"seed": 3}})
    (row,) = run_cells([cell], place)
    folder = place.out / "cells" / "3"
    assert sorted(path.name for path in folder.iterdir()) == [PREDICTIONS, "row.json", SCENARIO]
    assert json.loads((folder / "row.json").read_text()) == row
    assert predictions_of(place.out, cell).metrics()["accuracy"] == 0.3


def test_what_has_been_run_is_not_run_again(file, place, simulated):
    made = [Cell({"epsilon": e}, file, {"study": {"seed": 3}}) for e in (1.0, math.inf)]
    first = run_cells(made[1:], place)
    told = []
    rows = run_cells(made, place, lambda number, folder: told.append((number, folder)))
    assert len(simulated) == 2 and told == [(2, "1.0")]
    assert rows[1] == first[0] and math.isinf(rows[1]["epsilon"])


@pytest.mark.parametrize("change", ["file", "override"])
def test_a_finished_cell_of_another_study_is_not_taken_for_this_one(file, place, simulated, change):
    cell = Cell({"seed": 3}, file, {"study": {"seed": 3}})
    run_cells([cell], place)
    if change == "file":
        file.write_text(STUDY.replace("an a", "an A"))
    else:
        cell = replace(cell, overrides=("alignment.shots=5",))
    with pytest.raises(ConfigurationError, match=r"cells/3: holds a run of another study"):
        run_cells([cell], place)


def test_a_cell_that_was_cut_short_is_run_with_the_study_as_it_is(file, place, simulated):
    cell = Cell({"seed": 3}, file, {"study": {"seed": 3}})
    run_cells([cell], place)
    (place.out / "cells" / "3" / "row.json").unlink()
    file.write_text(STUDY.replace("an a", "an A"))
    run_cells([cell], place)
    assert "an A" in (place.out / "cells" / "3" / SCENARIO).read_text()


def test_a_cell_that_fails_says_why_and_the_others_are_run(file, place, simulated, monkeypatch):
    def refuse(scenario, there, zero_shot):
        raise FederationError("too few sites")

    good = Cell({"seed": 2}, file, {"study": {"seed": 2}})
    run_cells([good], place)
    monkeypatch.setattr(running, "simulate", refuse)
    bad, wrong = Cell({"seed": 1}, file, {}), Cell({"seed": 3}, file, {"study": {"sed": 3}})
    rows = run_cells([bad, wrong, good], place)
    assert rows[0]["error"] == "too few sites" and rows[0]["auroc"] is None
    assert "study.sed: unknown key" in rows[1]["error"]
    assert rows[2]["accuracy"] == 0.2
    assert predictions_of(place.out, bad) is None


def test_a_cell_may_measure_more(file, place, simulated):
    def twice(scenario, there, result):
        return {"twice": 2 * scenario.study.study.seed, "rounds": len(result["rounds"])}

    cell = Cell({"seed": 3}, file, {"study": {"seed": 3}}, measure=twice)
    (row,) = run_cells([cell], place)
    assert (row["twice"], row["rounds"]) == (6, 2)


@pytest.mark.matrix
def test_two_processes_give_the_rows_of_one(phantoms, place, tmp_path):
    made = [
        Cell({"method": "federated", "seed": seed}, phantoms, {"study": {"seed": seed}})
        for seed in (1, 2)
    ]
    told = []
    rows = run_cells(made, place, lambda number, folder: told.append(number), jobs=2)
    assert sorted(told) == [1, 2] and not any(row["error"] for row in rows)
    alone = run_cells(made[:1], Place(tmp_path, tmp_path / "alone", place.cache, device="cpu"))
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in (rows[0], alone[0])]
    assert timeless[0] == timeless[1]


def test_a_process_keeps_to_one_group_and_helps_where_none_is_left():
    first, second, third = Group([[], []]), Group([[]]), Group([[], [], []])
    left = [first, second, third]
    assert next_group(left, None, []) is first
    assert next_group(left, None, [first]) is second
    assert next_group(left, second, [first]) is second
    second.clear()
    assert next_group(left, second, [first, second]) is third
    first.pop()
    assert next_group(left, second, [first, third]) is third  # which has the most left


def test_baselines_of_one_scenario_share_their_sites(phantoms, place):
    """Each cell's folder goes with it, but the next baseline reads the same images."""
    names = ("linear_probe", "pixels", "zero_shot", "local_only", "pooled")
    rows = run_cells([Cell({"method": name}, phantoms, {}, name) for name in names], place)
    assert [row["error"] for row in rows] == [""] * len(names)
    assert all(row["bytes_up"] is None and row["auroc"] is not None for row in rows)
    found = [predictions_of(place.out, Cell({"method": name}, phantoms, {})) for name in names]
    assert all(list(each.classes) == ["normal", "smooth", "spiculated"] for each in found)
    assert len({tuple(each.groups) for each in found}) == 1  # the same images in the same order


def test_a_folder_in_which_a_table_is_being_run_is_left_to_it(place, file, simulated):
    wanted = [Cell({"seed": 0}, file, {})]
    with (
        hold(place.out / "table.lock", "a table"),
        pytest.raises(FederationError, match=r"a table in .*out is running already: process \d+"),
    ):
        run_cells(wanted, place)
    assert not (place.out / "cells").exists()


WORKER = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from hica_simulations.experiments.tables.run_cells import end_with_parent

pool = ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 600).result()
"""


def test_a_killed_table_takes_its_processes_with_it():
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE) as parent:
        ended = select.poll()
        ended.register(os.pidfd_open(int(parent.stdout.readline())), select.POLLIN)
        parent.kill()
        assert ended.poll(60_000)
