from pathlib import Path

import pytest

from hica.errors import ConfigurationError
from hica_simulations.run import Place
from hica_simulations.scenario import load_scenario
from hica_simulations.tables import TABLES, results
from hica_simulations.tables.cells import Cell
from hica_simulations.tables.results import (
    FIRST_SEED,
    PARTS,
    cells_of,
    parts_named,
    put_into,
    quick,
)

ROOT = Path(__file__).parents[4]
STUDIES = ROOT / "simulations" / "studies"


def test_every_table_of_the_page_has_its_place_in_it():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for part in PARTS:
        assert page.count(f"<!-- table: {part.name} -->") == 1
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_every_table_but_that_of_privacy_is_on_the_page():
    assert {part.table for part in PARTS} == TABLES.keys() - {"privacy"}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_cell_of_the_page_can_be_run(part):
    for cell in cells_of(quick(part), STUDIES):
        study = load_scenario(cell.study, list(cell.overrides)).study
        assert study.study.seed in (FIRST_SEED, FIRST_SEED + 1)
        assert study.alignment.shots in (1, 2)


def test_a_table_takes_the_place_of_the_one_before(tmp_path):
    page, other = tmp_path / "page.md", "between\n<!-- table: b -->\n<!-- end -->"
    page.write_text(f"before\n<!-- table: a -->\nold\n<!-- end -->\n{other}")
    put_into(page, "a", "| new |")
    put_into(page, "a", "| newer |")
    assert page.read_text() == f"before\n<!-- table: a -->\n\n| newer |\n<!-- end -->\n{other}"


@pytest.mark.parametrize("text", [None, "words alone", "<!-- table: a -->"])
def test_a_page_without_a_place_is_refused_and_kept(tmp_path, text):
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(ConfigurationError, match="no place for the table 'a'; write a line <!--"):
        put_into(page, "a", "new")
    assert not page.exists() if text is None else page.read_text() == text


def test_an_unknown_part_is_refused_and_the_others_are_named():
    assert parts_named([]) == list(PARTS)
    assert [part.name for part in parts_named(["sites", "main"])] == ["sites", "main"]
    with pytest.raises(ConfigurationError, match="--parts sizes: the page's tables are main, "):
        parts_named(["sizes"])


def test_tables_are_put_into_the_page_one_after_the_other(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- table: {p.name} -->\n<!-- end -->\n" for p in PARTS))
    told, jobs_of = [], {}

    class Module:
        @staticmethod
        def cells(files, shots, seeds, methods):
            return [Cell({"seed": seed}, file, ()) for file in files for seed in seeds]

        @staticmethod
        def write(rows, out):
            out.mkdir(parents=True, exist_ok=True)
            (out / "table.png").write_bytes(b"picture")
            return f"{len(rows)} rows\n"

    def run_cells(cells, place, told, jobs):
        jobs_of[place.out.name] = jobs
        told(len(cells), "last")
        return list(cells)

    monkeypatch.setattr(results, "table_named", lambda name: Module)
    monkeypatch.setattr(results, "run_cells", run_cells)
    parts = parts_named(["ablation", "efficiency"])
    place = Place(tmp_path, tmp_path / "out", tmp_path / "cache")
    results.rebuild(
        parts, STUDIES, place, page, lambda number, what: told.append((number, what)), 2
    )
    assert told == [(10, "ablation: last"), (12, "efficiency: last")]
    assert jobs_of == {"ablation": 2, "efficiency": 1}  # time is measured alone
    assert "10 rows" in page.read_text() and "![ablation](results-ablation.png)" in page.read_text()
    assert (tmp_path / "results-efficiency.png").read_bytes() == b"picture"
