import pickle

import pytest
import torch

from hica_simulations.experiments.tables import efficiency
from hica_simulations.experiments.tables.efficiency import WAYS, costs, measured
from hica_simulations.place import Place
from hica_simulations.scenario import load_scenario


@pytest.mark.parametrize("layers", [0, 3])
def test_every_way_of_training_is_taken_with_the_layers_it_reaches(study, layers):
    lines = efficiency.variants(load_scenario(study("breast_lesions"), [f"model.layers={layers}"]))
    assert tuple(lines) == WAYS
    for way, line in lines.items():
        reached = min(layers, 2) if way == "last-1" else layers
        assert line.changes == {"model": {"train": way, "layers": reached}}


@pytest.mark.parametrize("name", ["breast_lesions", "pneumonia", "tuberculosis", "phantoms"])
def test_every_cell_is_a_study_that_can_be_run(loaded, name):
    lines = loaded(efficiency, name)
    assert [scenario.study.model.train for scenario in lines.values()] == list(WAYS)


def test_cells_are_measured_in_any_process(study):
    cells = efficiency.cells([study("phantoms")], [5], [3])
    assert pickle.loads(pickle.dumps(cells[0])).measure is measured


def test_a_model_is_measured(toy_study, tmp_path):
    threads = torch.get_num_threads()
    small, large = (
        costs(toy_study(f"model.train={way}", "alignment.batch_size=8"), tmp_path, "cpu")
        for way in ("adapter", "full")
    )
    torch.set_num_threads(threads)
    texts = (2 + 4) * 128
    assert small["trained_weights"] == texts + 2 * 128 * 8 + 8 + 128 + 2 * 128
    assert large["trained_weights"] > 200_000
    assert small["images_a_second"] > 0
    assert large["peak_bytes"] is None or large["peak_bytes"] > 1e8  # PyTorch alone


@pytest.mark.matrix  # in a process of its own
def test_a_federation_is_measured_once_a_way_of_training(study, tmp_path, monkeypatch):
    scenario = load_scenario(study("phantoms"), ["model.train=adapter"])
    entry = {"stage": "alignment", "seconds": 2, "bytes_up": 300, "bytes_down": 600}
    entry["participants"] = ["north", "south", "east"]
    other = {"stage": "calibration", "seconds": 9, "bytes_up": 9, "bytes_down": 9}
    result = {"rounds": [entry, {**other, "participants": ["north"]}, entry]}
    place = Place(tmp_path, tmp_path / "out", tmp_path / "cache", device="cpu")
    monkeypatch.setattr(efficiency, "_MEASURED", {})
    row = measured(scenario, place, result)
    assert row["training_seconds"] == 4
    assert (row["site_bytes_up"], row["site_bytes_down"]) == (100, 200)
    assert row["trained_weights"] > 0 and row["images_a_second"] > 0
    assert row == measured(scenario, place, result)  # not measured again: speeds would differ


def test_a_table_shows_what_things_cost(row, tmp_path):
    more = {"training_seconds": 61.2, "images_a_second": 12.34, "peak_bytes": 5.5e8}
    more |= {"site_bytes_up": 4.25e6, "site_bytes_down": 4.5e6, "trained_weights": 1_234_567}
    rows = [row(way, seed, 0.5, **more) for way in WAYS for seed in (1, 2)]
    text = efficiency.write(rows, tmp_path)
    assert "| last-2 | 50.0 | 61 | 12.3 | 550 | 4.25 | 4.50 | 1.235 |" in text
    assert "fresh process" in text
