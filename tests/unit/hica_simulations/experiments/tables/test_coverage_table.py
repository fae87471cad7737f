import numpy as np
import pytest

from hica_simulations.experiments.tables import coverage_table, gain_table, per_site
from hica_simulations.experiments.tables.cells import Cell, folder_of

LABELS = ("study", "shots", "method", "seed")


def test_the_runs_are_those_of_the_table_of_the_gain(study):
    ours, gains = (
        table.cells([study("chest_xray")], [4], [1]) for table in (coverage_table, gain_table)
    )
    assert len(ours) == 1 and ours[0] in gains


@pytest.fixture
def rows(row, predictions, tmp_path):
    made = []
    for seed in (1, 2):
        made.append(row(per_site.AS_IS, seed, 0.5))
        labels = {name: made[-1][name] for name in LABELS}
        folder = folder_of(tmp_path, Cell(labels, tmp_path, {}))
        predictions(1.0, patients=400, seed=seed).save(folder / "personal.json")
    return made


def test_sets_hold_the_right_class_as_often_as_promised(rows, tmp_path):
    text = coverage_table.write(rows, tmp_path)
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| s ")]
    assert [line[2] for line in lines] == ["south", "north", coverage_table.TOGETHER]
    for line in lines:
        assert abs(float(line[4]) - 90) < 3 and 0 < float(line[5]) < 100
    together, sites = lines[-1], lines[:-1]
    assert int(together[6].split()[0]) == sum(int(line[6].split()[0]) for line in sites)
    assert "Seeds 1, 2" in text
    for name in ("table.csv", "table.md", "table.png", "report.html"):
        assert (tmp_path / name).exists()


def test_a_site_of_few_patients_has_no_line(row, predictions, tmp_path):
    made = row(per_site.AS_IS, 1, 0.5)
    folder = folder_of(tmp_path, Cell({name: made[name] for name in LABELS}, tmp_path, {}))
    predictions(1.0, patients=12, seed=1).save(folder / "personal.json")
    text = coverage_table.write([made], tmp_path)
    found = [line.split(" | ")[2] for line in text.splitlines() if line.startswith("| s ")]
    assert found == ["north", coverage_table.TOGETHER]


def test_a_model_that_is_too_sure_is_covered_all_the_same(predictions):
    found = predictions(1.0, patients=400, seed=3)
    logits = 8 * np.log(found.probabilities)
    sure = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    (north,) = coverage_table.checked_at(
        [type(found)(sure, found.labels, found.groups, found.sites, found.classes)]
    )["north"]
    assert abs(north.covered - 0.9) < 0.05
