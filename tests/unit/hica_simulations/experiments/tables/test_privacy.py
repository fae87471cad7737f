import math
from pathlib import Path

import pytest

from hica_simulations.experiments.tables.privacy import BUDGETS, METHODS, as_markdown, cells, write

ROOT = Path(__file__).parents[5]
BREAST = ROOT / "simulations" / "studies" / "breast_ultrasound.toml"


@pytest.fixture(scope="module")
def made():
    return cells([BREAST], [1, 20], [5, 6])


def row(method, epsilon, seed, auroc, error=""):
    labels = {"study": "s", "method": method, "shots": 20, "epsilon": epsilon, "seed": seed}
    values = {"accuracy": auroc, "balanced_accuracy": auroc, "auroc": auroc, "ece": None}
    return {**labels, **values, "error": error}


def test_every_mechanism_is_run_at_every_budget_with_every_seed(made):
    assert len(made) == 2 * 2 * (1 + 3 * len(BUDGETS))
    assert len({cell.folder for cell in made}) == len(made)


def test_every_cell_is_a_study_that_is_taken(made):
    for cell in made:
        study = cell.scenario().study
        budget = cell.labels["epsilon"]
        assert study.privacy.is_private == (cell.labels["method"] != "none")
        assert study.alignment.shots == cell.labels["shots"]
        assert study.study.seed == cell.labels["seed"]
        if study.privacy.is_private and math.isfinite(budget):
            assert study.privacy.epsilon == budget
        assert study.model.train == "adapter"


def test_differences_are_paired_by_seed_with_the_same_mechanism_without_noise():
    rows = [row("prototypes", math.inf, seed, 0.8 + seed / 100) for seed in (1, 2, 3)]
    rows += [row("prototypes", 3.0, seed, 0.75 + seed / 100) for seed in (1, 2, 3)]
    text = as_markdown(rows)
    assert "| s | 20 | prototypes | ∞ | 82.0 | – | 82.0 | – |" in text
    assert "| s | 20 | prototypes | 3 | 77.0 | -5.0 [-5.0, -5.0] |" in text
    assert "seeds 1, 2, 3" in text and "could not be run" not in text


def test_a_cell_that_failed_is_listed_and_nothing_is_made_up_for_it():
    rows = [row("dp-sgd", math.inf, 1, 0.8), row("dp-sgd", 1.0, 1, None, "no noise is enough")]
    text = as_markdown(rows)
    assert "| s | 20 | dp-sgd | 1 | – | – | – | – |" in text
    assert "- no noise is enough" in text


def test_a_table_leaves_csv_markdown_and_a_picture(tmp_path):
    rows = [row(m, e, s, 0.7) for m in METHODS for e in BUDGETS for s in (1, 2)]
    rows.append(row("prototypes", 1.0, 3, None, "failed"))
    text = write(rows, tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert (tmp_path / "table.csv").read_text().startswith("study,method,shots,epsilon,seed,")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert "Accuracy against ε" in (tmp_path / "report.html").read_text()
