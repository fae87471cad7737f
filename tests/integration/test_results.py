"""The page of results, rebuilt on real images with few seeds and shots."""

import csv
import re
from pathlib import Path

import pytest

from hica_simulations.cli import main
from hica_simulations.experiments.tables.results import FIRST_SEED

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, which is not here"),
]


def test_a_subset_of_the_page_is_rebuilt_and_a_repeat_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = tmp_path / "results.md"
    page.write_text("words\n<!-- table: main -->\n<!-- end -->\nmore words\n")
    command = ["results", "--data", str(DATA), "--out", str(tmp_path / "out"), "--page", str(page)]
    command += ["--cache", str(tmp_path / "cache"), "--parts", "main", "--quick", "--jobs", "1"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    text = page.read_text()
    assert text.startswith("words\n") and text.endswith("<!-- end -->\nmore words\n")
    with (tmp_path / "out" / "main" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {
        "federated",
        "zero_shot",
        "nearest_mean",
        "linear_probe",
        "clap",
    }
    assert {(row["shots"], row["seed"]) for row in rows} == {
        (str(shots), str(seed)) for shots in (1, 2) for seed in (FIRST_SEED, FIRST_SEED + 1)
    }
    assert not any(row["error"] for row in rows)
    means = re.findall(r"\| HiCA federated \| ([\d.]+) \| ([\d.]+) \|", text)
    assert len(means) == 2  # accuracy and AUROC
    assert all(30 < float(value) < 100 for pair in means for value in pair)
    assert (tmp_path / "results-main.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/main/cells/*/row.json")}
    with pytest.raises(SystemExit):
        main(command)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert page.read_text() == text
