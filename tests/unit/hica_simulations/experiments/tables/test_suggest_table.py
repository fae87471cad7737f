import pytest

from hica_simulations.experiments.tables import suggest_table
from hica_simulations.experiments.tables.suggest_table import EACH_CLASS, RANDOM, SUGGESTED


@pytest.mark.parametrize(("name", "classes"), [("breast_lesions", 2), ("pneumonia", 2)])
def test_all_labels_that_a_site_gives_are_its_shots(loaded, name, classes):
    lines = loaded(suggest_table, name, shots=(4,))
    assert list(lines) == [RANDOM, SUGGESTED, EACH_CLASS]
    shots = [line.study.alignment.shots for line in lines.values()]
    assert shots == [4 * classes, 4 * classes, 4]
    assert [line.simulation.labelling for line in lines.values()] == ["random", "suggested", "all"]


def test_suggested_labels_are_compared_with_random_ones(row, save, predictions, tmp_path):
    rows = [row(name, seed, 0.5, 4) for name in (RANDOM, SUGGESTED) for seed in (1, 2)]
    for each in rows:
        save(tmp_path, each, predictions(5.0))
    text = suggest_table.write(rows, tmp_path)
    assert text.count("+0.0 [+0.0, +0.0]") == 3 and "whatever classes" in text
