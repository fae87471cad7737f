import numpy as np
import pytest

from hica.errors import ConfigurationError
from hica_simulations.experiments.tables import main_table
from hica_simulations.experiments.tables.cells import LOCAL, OURS, POOLED, Cell
from hica_simulations.predictions import Predictions
from hica_simulations.run import PREDICTIONS


@pytest.fixture
def rows(row, tmp_path):
    """Two seeds, two numbers of shots; the best baseline is another at each number."""
    values = {
        OURS: {1: (0.6, 0.7), 20: (0.90, 0.92)},
        "linear_probe": {1: (0.5, 0.6), 20: (0.85, 0.89)},
        "nearest_mean": {1: (0.62, 0.70), 20: (0.7, 0.7)},
        POOLED: {20: (0.95, 0.95)},
    }
    made = []
    for method, of in values.items():
        for shots, pair in of.items():
            for seed, value in enumerate(pair):
                labels = {"study": "s", "shots": shots, "method": method, "seed": seed}
                metrics = dict.fromkeys(("accuracy", "auroc", "balanced_accuracy", "ece"), value)
                made.append({**labels, **metrics, "worst_auroc": value, "error": ""})
                folder = tmp_path / "cells" / Cell(labels, tmp_path, {}).folder
                found = Predictions(
                    np.eye(2)[[0, 1, 0]], np.array([0, 1, 1]), list("abc"), ["n"] * 3
                )
                found.save(folder / PREDICTIONS)
    return made


def test_the_page_holds_methods_by_shots_and_what_ours_gains(rows, tmp_path):
    text = main_table.write(rows, tmp_path)
    assert "| HiCA federated | 65.0 | 91.0 |" in text
    assert "| HiCA pooled (images in one place) | – | 95.0 |" in text
    lines = [line for line in text.splitlines() if line.startswith(("| 1 | AUROC", "| 20 | AUROC"))]
    assert "+10.0 [+10.0, +10.0]" in lines[0] and "nearest class mean, pooled shots" in lines[0]
    assert "-1.0 [-13.7, +11.7]" in lines[0]
    assert lines[1].count("+4.0 [-8.7, +16.7]") == 2  # the linear probe is the best there
    assert (tmp_path / "table.md").read_text() == text
    assert {"table.csv", "table.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}


def test_slow_and_reference_methods_are_run_at_the_most_shots_alone(study):
    cells = main_table.cells([study("breast_lesions")], [1, 20], [3])
    at = {shots: {c.method for c in cells if c.labels["shots"] == shots} for shots in (1, 20)}
    assert at[20] - at[1] == {LOCAL, POOLED, "clip_lora"}
    assert {"linear_probe", "coop", "cnn", OURS} <= at[1]


def test_a_line_that_a_table_has_not_is_refused_and_the_others_are_named(study):
    with pytest.raises(
        ConfigurationError, match=r"--methods cpal: for breast_lesions.toml .* clap"
    ):
        main_table.cells([study("breast_lesions")], [1], [3], ["cpal"])


def test_drawn_towers_have_no_baselines_on_their_features(study):
    methods = {cell.method for cell in main_table.cells([study("phantoms")], [5], [0])}
    assert methods == {OURS, LOCAL, POOLED, "pixels"}
