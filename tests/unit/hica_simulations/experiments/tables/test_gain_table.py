import pytest

from hica.study.sections import PersonalSection
from hica_simulations.experiments.tables import gain_table
from hica_simulations.experiments.tables.cells import Cell, folder_of

SKILL = {"alone": 0.5, "shared": 1.0, "personal": 3.0}


def test_one_run_gives_all_three_models(loaded):
    (scenario,) = loaded(gain_table, "phantoms").values()
    assert scenario.study.personal.epochs == PersonalSection().epochs


@pytest.fixture
def rows(row, predictions, tmp_path):
    made = []
    for seed in (1, 2, 3):
        made.append(row(gain_table.PERSONAL, seed, 0.5))
        labels = {name: made[-1][name] for name in ("study", "shots", "method", "seed")}
        folder = folder_of(tmp_path, Cell(labels, tmp_path, {}))
        for model, right in SKILL.items():
            predictions(right, seed=seed).save(folder / f"{model}.json")
    return made


def test_every_site_has_a_line_and_the_mean_stands_last(rows, tmp_path):
    text = gain_table.write(rows, tmp_path)
    lines = [line.split(" | ")[2] for line in text.splitlines() if line.startswith("| s | 20")]
    assert lines == ["south", "north", gain_table.MEAN]
    assert "Seeds 1, 2, 3" in text and "alone → shared → personal" in text
    for name in ("table.csv", "table.md", "table.png", "report.html"):
        assert (tmp_path / name).exists()


def test_differences_are_those_of_each_sites_own_images(rows, predictions, tmp_path):
    text = gain_table.write(rows, tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("| s | 20 | north")]
    values = {
        model: 100
        / 3
        * sum(
            gain_table.at(predictions(right, seed=seed), "north").metrics()["auroc"]
            for seed in (1, 2, 3)
        )
        for model, right in SKILL.items()
    }
    cells = line.removesuffix(" |").split(" | ")
    assert cells[-2] == " → ".join(f"{value:.1f}" for value in values.values())
    assert cells[-1].startswith(f"{values['personal'] - values['alone']:+.1f} [")


def test_what_could_not_be_run_leaves_the_reason(rows, row, tmp_path):
    rows = [*rows[:2], row(gain_table.PERSONAL, 3, None)]
    text = gain_table.write(rows, tmp_path)
    assert "Could not be run:" in text and "no such luck" in text
    assert "| s | 20 | – |" in text


def test_a_run_leaves_what_its_sites_keep(rows, tmp_path, study):
    """On phantoms, in a minute of training cut short."""
    from hica_simulations.experiments.tables.run_cells import run_cell
    from hica_simulations.place import Place

    (cell,) = gain_table.cells([study("phantoms")], [2], [1])
    cell = Cell(
        cell.labels,
        cell.study,
        {**cell.changes, "personal": {"epochs": 1}},
        cell.method,
        cell.measure,
        ("alignment.rounds=1", "pretraining.rounds=0"),
    )
    run_cell(cell, Place(tmp_path, tmp_path / "out", tmp_path / "cache", "cpu"))
    found = gain_table.found_of(
        [{**cell.labels, "error": ""}], cell.labels["study"], 2, "alone", tmp_path / "out"
    )
    assert len(found) == 1 and set(found[0].sites)
