from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hica.study.sections import PersonalSection
from hica_simulations.experiments.tables import gain_table, per_site
from hica_simulations.experiments.tables.cells import Cell, folder_of
from hica_simulations.place import Place
from hica_simulations.predictions import Predictions

LABELS = ("study", "shots", "method", "seed")
SMALL = ("simulation.phantoms.per_class=20", "simulation.phantoms.size=48")
SKILL = {"alone": 0.5, "shared": 1.0, "personal": 3.0}


def test_one_run_gives_all_three_models(loaded):
    for scenario in loaded(gain_table, "breast_lesions").values():
        assert scenario.study.personal.epochs == PersonalSection().epochs


def test_a_study_is_made_harder_where_that_can_be(loaded):
    names = {study: list(loaded(gain_table, study)) for study in ("breast_lesions", "chest_xray")}
    wrong = ["labels of 1st site at random", "labels of 1st site wrong"]
    skewed = [f"label skew, α = {alpha}" for alpha in ("1", "0.3", "0.1")]
    assert names["chest_xray"] == ["as it is", *wrong]
    assert names["breast_lesions"] == ["as it is", *skewed, "sizes 8:4:2:1", *wrong]
    assert list(loaded(gain_table, "breast_ultrasound")) == ["as it is"]
    spoilt = loaded(gain_table, "chest_xray")[wrong[1]].simulation.sites
    assert [site.label_noise for site in spoilt] == [1.0, 0.0, 0.0, 0.0]


def test_images_stand_in_the_order_of_the_studys_sites_as_those_of_other_methods(
    loaded, monkeypatch, tmp_path
):
    scenario = loaded(gain_table, "chest_xray")["as it is"]
    names = [site.name for site in scenario.simulation.sites]
    assert names != sorted(names)
    for name in names:
        (tmp_path / "run" / "sites" / name).mkdir(parents=True)
        (tmp_path / "run" / "sites" / name / "site.toml").touch()
    final = {"shared": np.eye(1, 2), "probabilities": np.eye(1, 2), "labels": np.zeros(1)}

    def session(name, study):
        roles = SimpleNamespace(test=[SimpleNamespace(group="p")])
        return SimpleNamespace(name=name, study=study, roles=roles, kept=lambda _: final)

    monkeypatch.setattr(gain_table, "load_site", lambda path: path.parent.name)
    monkeypatch.setattr(gain_table, "Session", session)
    monkeypatch.setattr(gain_table, "kept_logits", lambda _: {"alone": np.zeros((1, 2))})
    gain_table.measured(scenario, Place(Path(), tmp_path / "run", Path()), {})
    assert Predictions.load(tmp_path / "alone.json").sites == names


@pytest.fixture
def rows(row, predictions, tmp_path):
    made = []
    for seed in (1, 2, 3):
        made.append(row(per_site.AS_IS, seed, 0.5))
        labels = {name: made[-1][name] for name in LABELS}
        folder = folder_of(tmp_path, Cell(labels, tmp_path, {}))
        for model, right in SKILL.items():
            predictions(right, seed=seed).save(folder / f"{model}.json")
    return made


def test_every_site_has_a_line_and_the_mean_stands_last(rows, tmp_path):
    text = gain_table.write(rows, tmp_path)
    lines = [line.split(" | ")[3] for line in text.splitlines() if line.startswith("| s | 20")]
    assert lines == ["south", "north", per_site.TOGETHER, per_site.MEAN]
    assert "Seeds 1, 2, 3" in text and "alone → shared → personal" in text
    for name in ("table.csv", "table.md", "table.png", "report.html"):
        assert (tmp_path / name).exists()


def test_differences_are_those_of_each_sites_own_images(rows, predictions, tmp_path):
    text = gain_table.write(rows, tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("| s | 20 | as it is | north")]
    values = {
        model: 100
        / 3
        * sum(
            per_site.at(predictions(right, seed=seed), "north").metrics()["auroc"]
            for seed in (1, 2, 3)
        )
        for model, right in SKILL.items()
    }
    cells = line.removesuffix(" |").split(" | ")
    assert cells[-3] == " → ".join(f"{value:.1f}" for value in values.values())
    for cell, other in ((cells[-2], "alone"), (cells[-1], "shared")):
        assert cell.startswith(f"{values['personal'] - values[other]:+.1f} [")


def test_a_site_without_a_class_in_its_test_has_no_auroc_and_spoils_no_mean(
    rows, predictions, tmp_path
):
    before = gain_table.write(rows, tmp_path).splitlines()
    folder = folder_of(tmp_path, Cell({k: rows[0][k] for k in LABELS}, tmp_path, {}))
    for model, right in SKILL.items():
        found = predictions(right, seed=1)
        north = np.array([site == "north" for site in found.sites])
        labels = np.where(north, 0, found.labels)
        replace(found, labels=labels).save(folder / f"{model}.json")
    after = gain_table.write(rows, tmp_path).splitlines()
    assert before != after and not any("nan" in line for line in after)
    (north,) = [line for line in after if "| as it is | north" in line]
    seeds = [per_site.at(predictions(0.5, seed=seed), "north").metrics() for seed in (2, 3)]
    assert f"| {100 * sum(each['auroc'] for each in seeds) / 2:.1f} → " in north


def test_what_could_not_be_run_leaves_the_reason(rows, row, tmp_path):
    rows = [*rows[:2], row(per_site.AS_IS, 3, None)]
    text = gain_table.write(rows, tmp_path)
    assert "Could not be run:" in text and "no such luck" in text
    assert "| s | 20 | as it is | – |" in text


@pytest.mark.matrix
def test_a_run_leaves_what_its_sites_keep(rows, tmp_path, study):
    """On few small phantoms."""
    from hica_simulations.experiments.tables.run_cells import run_cell
    from hica_simulations.place import Place

    (cell,) = gain_table.cells([study("phantoms")], [2], [1])
    cell = Cell(
        cell.labels,
        cell.study,
        {**cell.changes, "personal": {"epochs": 1}},
        cell.method,
        cell.measure,
        ("alignment.rounds=1", "pretraining.rounds=0", *SMALL),
    )
    run_cell(cell, Place(tmp_path, tmp_path / "out", tmp_path / "cache", "cpu"))
    group = (cell.labels["study"], 2, per_site.AS_IS)
    found = per_site.found_of([{**cell.labels, "error": ""}], group, "alone", tmp_path / "out")
    assert len(found) == 1 and set(found[0].sites)
