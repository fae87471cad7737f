import pytest

from hica_simulations.experiments.tables import gain_table, joined_table, per_site
from hica_simulations.experiments.tables.cells import OURS, Cell, folder_of

LABELS = ("study", "shots", "method", "seed")
SKILL = {per_site.AS_IS: 2.0, "linear_probe": 1.0, "cnn": 3.0}


def test_the_federation_is_the_run_of_the_table_of_the_gain(study):
    ours, gains = (
        [cell for cell in table.cells([study("chest_xray")], [4], [1]) if cell.method == OURS]
        for table in (joined_table, gain_table)
    )
    assert len(ours) == 1 and ours[0] in gains


@pytest.fixture
def rows(row, predictions, tmp_path):
    made = []
    for seed in (1, 2, 3):
        for method, right in SKILL.items():
            made.append(row(method, seed, 0.5))
            labels = {name: made[-1][name] for name in LABELS}
            folder = folder_of(tmp_path, Cell(labels, tmp_path, {}))
            name = "personal" if method == per_site.AS_IS else "predictions"
            predictions(right, seed=seed).save(folder / f"{name}.json")
    return made


def test_every_site_has_a_line_with_what_a_baseline_is_less(rows, predictions, tmp_path):
    text = joined_table.write(rows, tmp_path)
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| s ")]
    assert [line[2] for line in lines] == ["south", "north", per_site.TOGETHER, per_site.MEAN]
    ours, probe, cnn = (
        100
        / 3
        * sum(
            per_site.value_at(predictions(right, seed=seed), "north", [], "auroc")
            for seed in (1, 2, 3)
        )
        for right in SKILL.values()
    )
    north = lines[1][-5:]
    assert north[::2][0] == f"{ours:.1f}" and north[1::2] == [f"{probe:.1f}", f"{cnn:.1f}"]
    assert north[2].startswith(f"{ours - probe:+.1f} [")
    assert north[4].startswith(f"{ours - cnn:+.1f} [")
    assert "Seeds 1, 2, 3" in text
    for name in ("table.csv", "table.md", "table.png", "report.html"):
        assert (tmp_path / name).exists()


def test_a_study_that_could_not_be_run_with_one_of_them_has_no_numbers(rows, row, tmp_path):
    rows = [*rows[:-1], row("cnn", 3, None)]
    assert "| s | 20 | – | – |" in joined_table.write(rows, tmp_path)
