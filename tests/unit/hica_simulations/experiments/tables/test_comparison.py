import csv

import pytest

from hica_simulations.experiments.tables.comparison import Comparison, Figure, Variant


def variants(scenario):
    seed = scenario.study.study.seed
    return {
        "own": Variant(),
        "other": Variant({"alignment": {"margin": seed / 10}}),
        "probe": Variant(method="linear_probe"),
        "probe, damaged": Variant({"alignment": {"views": 1}}, "linear_probe"),
    }


def table(**more):
    metrics = {"accuracy": "accuracy", "auroc": "AUROC"}
    return Comparison("Title", "own", variants, metrics, ("auroc",), **more)


@pytest.fixture
def rows(row):
    made = [row("own", seed, 0.5 + seed / 100) for seed in (1, 2, 3)]
    return made + [row("other", seed, 0.52 + seed / 100) for seed in (1, 2, 3)]


def cell_of(text, name, number):
    (line,) = [line for line in text.splitlines() if f"| {name} |" in line]
    return line.split("|")[number].strip()


def test_every_line_is_run_with_every_seed_and_number_of_shots(study):
    compared = table(rarely=frozenset({"probe"}), everywhere={"text": {"epochs": 1}})
    cells = compared.cells([study("phantoms")], [1, 5], [3, 4])
    told = [tuple(cell.labels[name] for name in ("seed", "shots", "method")) for cell in cells]
    names = ("own", "other", "probe", "probe, damaged")
    assert told == [
        (seed, shots, name)
        for seed in (3, 4)
        for shots in (5, 1)
        for name in names
        if name != "probe" or shots == 5
    ]
    scenario = cells[1].scenario()
    assert (scenario.study.alignment.shots, scenario.study.study.seed) == (5, 3)
    assert scenario.simulation.split_seed == 3 and scenario.study.text.epochs == 1
    assert scenario.study.alignment.margin == 0.3  # variants know the seed
    assert [cell.method for cell in cells[:3]] == ["federated", "federated", "linear_probe"]


def test_chosen_lines_come_with_what_they_are_compared_with(study):
    compared = table(against={"probe, damaged": "probe"})
    cells = compared.cells([study("phantoms")], [5], [3], ["probe, damaged"])
    assert [cell.labels["method"] for cell in cells] == ["own", "probe", "probe, damaged"]


def test_differences_are_paired_by_seed(rows, tmp_path):
    text = table().write(rows, tmp_path)
    assert "| s | 20 | own | 52.0 | 52.0 | – | – |" in text
    assert "| s | 20 | other | 54.0 | 54.0 | +2.0 [+2.0, +2.0] | – |" in text
    assert "Seeds 1, 2, 3" in text and "Could not be run" not in text


def test_patients_are_compared_where_predictions_are_of_the_same_images(
    rows, tmp_path, save, predictions
):
    for each in rows:
        save(tmp_path, each, predictions(3.0 if each["method"] == "other" else 0.0))
    text = table().write(rows, tmp_path)
    low, high = map(float, cell_of(text, "other", 7).strip("[]").split(","))
    assert 0 < low < high
    for each in rows[:3]:
        save(tmp_path, each, predictions(0.0, patients=11))
    assert cell_of(table().write(rows, tmp_path), "other", 7) == "–"


def test_a_cell_that_failed_is_listed_and_nothing_is_made_up_for_it(rows, row, tmp_path):
    text = table().write([*rows[:5], row("other", 3, None)], tmp_path)
    assert "| s | 20 | other | 53.5 | 53.5 | – | – |" in text
    assert text.count("- other: no such luck") == 1


def test_a_line_may_be_compared_with_another_one(rows, row, tmp_path):
    more = [row("worse", seed, 0.42 + seed / 100) for seed in (1, 2, 3)]
    text = table(against={"worse": "other"}).write([*rows, *more], tmp_path)
    assert cell_of(text, "worse", 6) == "-10.0 [-10.0, -10.0]"
    assert 'In its place, "other" is what these are compared with: worse.' in text


def test_columns_may_be_computed_from_predictions(rows, tmp_path, save, predictions):
    save(tmp_path, rows[0], predictions(1.0))
    save(tmp_path, rows[1], predictions(1.0, patients=24))

    def counted(found, row):
        return {"patients": len(set(found.groups)) / 100, "unknown": None}

    text = table(extra=counted).write(rows, tmp_path)
    assert "| AUROC | patients | unknown |" in text
    assert cell_of(text, "own", 6) == "18.0" and cell_of(text, "other", 6) == "–"
    with (tmp_path / "table.csv").open() as file:
        found = [line["patients"] for line in csv.DictReader(file)]
    assert found == ["0.12", "0.24", "", "", "", ""]


def test_numbers_that_are_no_shares_have_a_form_of_their_own(rows, row, tmp_path):
    figures = {"bytes_up": Figure("up, MB", 1e-6, 2), "seconds": Figure("seconds")}
    costs = {"bytes_up": 2_500_000, "seconds": 1234.4}
    made = [row("own", 1, 0.5, **costs), row("own", 2, 0.5, **costs), row("own", 3, None)]
    text = table(figures=figures, remark="Measured.").write(made, tmp_path)
    assert "| own | 50.0 | 50.0 | 2.50 | 1,234 |" in text
    assert " Measured.\n" in text


def test_a_table_leaves_csv_markdown_a_picture_and_a_page(rows, row, tmp_path):
    for name, made in {
        "one": rows,
        "reference": rows[:3],
        "many": [*rows, *(row("own", n, 0.4, shots=5) for n in (1, 2, 3))],
    }.items():
        out = tmp_path / name
        text = table().write(made, out)
        assert (out / "table.md").read_text() == text
        assert (out / "table.csv").read_text().startswith("study,shots,method,seed,accuracy")
        assert (out / "table.png").read_bytes().startswith(b"\x89PNG")
        assert "<h1>Title</h1>" in (out / "report.html").read_text()
