import csv

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hica_simulations.experiments.audit.plot import plot
from hica_simulations.experiments.audit.report import as_markdown, remarks, tables, write_tables

NAMES = {"none": "no privacy", "dp-1": "DP, ε = 1", "control": "control: DP, ε = 1, noise / 10"}


@pytest.fixture
def result():
    rows = [
        {
            "setting": name,
            "seen": seen,
            "attacker": attacker,
            "canary": "odd",
            "claimed": None if name == "none" else 1.0,
            "auc": 0.75,
            "tpr": 0.12,
            "tpr_low": 0.09,
            "tpr_high": 0.16,
            "bound": 0.5,
            "gaussian_bound": 2.0,
            "ceiling": 3.0,
            "gaussian_ceiling": 2.0,
            "trials": 100,
            "decisive": attacker == "insider" and seen != "model",
            "refuted": name == "control",
        }
        for name in NAMES
        for seen in ("prototypes", "update", "model")
        for attacker in ("insider", "outsider")
    ]
    rebuilt = {"setting": "none", "attack": "class sums", "images": 5, "targets": 8}
    crafted = {"asked": 4, "images": 30, "near": 1.5, "most": 2, "best": 0.998, "guess": 0.6}
    answers = {
        "unchecked": (4, 20.0),
        "refused": (0, 0.0),
        "window": (0, 0.0),
        "allowed": (4, 0.75),
        "again": (0, 0.0),
    }
    return {
        "study": "toy",
        "delta": 1e-5,
        "settings": NAMES,
        "membership": rows,
        "reconstruction": [{**rebuilt, "cosine": 0.7, "low": 0.6, "high": 0.8, "guess": 0.1}],
        "active": [
            {"setting": "none", "request": name, "answered": answered, "found": found, **crafted}
            for name, (answered, found) in answers.items()
        ],
        "refuted": [],
        "catches_control": {"prototypes": True, "update": True},
        "finds_members": True,
    }


def test_tables_tell_claims_bounds_and_ceilings(result, tmp_path):
    write_tables(result, tmp_path)
    text = (tmp_path / "audit.md").read_text()
    assert text == as_markdown(result)
    assert "| DP, ε = 1 | updates | 1.00 | 0.50 | 2.00 * | 0.750 | 12 % [9, 16] |" in text
    assert "| no privacy | class sums | ∞ |" in text
    assert "| no privacy | class sums | 5 | 0.70 [0.60, 0.80] | 0.10 |" in text
    crafted = "| no privacy | what is allowed, every round | 4 | 4 | 30 | 0.8 [2 at most] | 1.5 |"
    assert crafted + " 1.00 | 0.60 |" in text
    assert (
        "| no privacy | crafted weights | 4 | 0 | 30 | 0.0 [2 at most] | 1.5 | - | 0.60 |" in text
    )
    assert "ε ≥ 3.00, Gaussian 2.0" in text
    rows = list(csv.DictReader((tmp_path / "audit.csv").open()))
    assert len(rows) == len(result["membership"])
    assert rows[0]["tpr_high"] == "0.16"


def test_no_refutation_is_no_proof(result):
    assert any("proves none of them" in line for line in remarks(result))
    assert any("The audit can tell" in line for line in remarks(result))


def test_a_refuted_claim_is_shouted(result):
    result["refuted"] = ["dp-1"]
    assert any(line.startswith("REFUTED: DP, ε = 1.") for line in remarks(result))


def test_an_audit_that_misses_the_control_says_that_it_is_too_weak(result):
    result["catches_control"]["update"] = False
    assert any("too weak" in line and "updates" in line for line in remarks(result))


def test_what_crafted_requests_came_to_is_told(result):
    said = remarks(result)[-1]
    assert said.startswith("Crafted weights recover 20 of 30 images where nothing is checked;")
    assert "sites have answered 0." in said and said.endswith("in a study, 2 at most.")
    result["active"] = []
    assert not any("Crafted" in line for line in remarks(result))
    assert "| request |" not in as_markdown(result) and len(tables(result)) == 2


def test_a_terminal_shows_every_row(result):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in tables(result):
        console.print(table)
    assert console.export_text().count("DP, ε = 1") >= 3


def test_the_picture_is_small_and_shows_something(result, tmp_path):
    curve = (np.array([0.0, 0.1, 1.0]), np.array([0.0, 0.5, 1.0]))
    curves = {
        f"{name}/{seen}/{attacker}/odd": curve
        for name in NAMES
        for seen in ("prototypes", "update")
        for attacker in ("insider", "outsider")
    }
    plot(result, curves, tmp_path / "audit.png")
    assert (tmp_path / "audit.png").stat().st_size < 500_000
    assert np.asarray(Image.open(tmp_path / "audit.png")).std() > 10
