from pathlib import Path

import pytest

from hica.errors import ConfigurationError
from hica_simulations.experiments.tables import TABLES, results
from hica_simulations.experiments.tables.cells import Cell
from hica_simulations.experiments.tables.results import (
    FIRST_SEED,
    PARTS,
    cells_of,
    copy_shared,
    parts_named,
    put_into,
    quick,
)
from hica_simulations.place import Place

ROOT = Path(__file__).parents[5]
STUDIES = ROOT / "simulations" / "studies"


def test_every_table_of_the_page_has_its_place_in_it():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for part in PARTS:
        assert page.count(f"<!-- table: {part.name} -->") == 1
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_every_table_is_on_the_page_but_that_of_privacy_and_one_for_a_gpu():
    assert {part.table for part in PARTS} == TABLES.keys() - {"privacy", "training"}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_cell_of_the_page_can_be_run(part):
    for cell in cells_of(quick(part), STUDIES):
        study = cell.scenario().study
        assert study.study.seed in (FIRST_SEED, FIRST_SEED + 1)
        assert cell.labels["shots"] in (1, 2)
        assert study.alignment.shots % cell.labels["shots"] == 0  # all labels of a site are shots


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


def finish(folder, row="{}"):
    folder.mkdir(parents=True)
    (folder / "predictions.json").write_text("predictions")
    (folder / "row.json").write_text(row)


def test_a_run_of_an_earlier_table_is_not_made_again(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    recipe, change = {"alignment": {"shots": 4}}, {"alignment": {"shots": 4, "views": 1}}
    earlier = [Cell({"method": "federated"}, Path("a.toml"), recipe)]
    later = [
        Cell({"method": "own"}, Path("a.toml"), recipe),
        Cell({"method": "changed"}, Path("a.toml"), change),
        Cell({"method": "probe"}, Path("a.toml"), recipe, method="linear_probe"),
        Cell({"method": "other"}, Path("b.toml"), recipe),
        Cell({"method": "timed"}, Path("a.toml"), recipe, measure=lambda *_: {}),
    ]
    shared = {}
    copy_shared(earlier, one, shared)
    finish(one / "cells" / "federated", row='{"auroc": 1}')
    copy_shared(later, two, shared)
    assert [path.name for path in (two / "cells").iterdir()] == ["own"]
    assert (two / "cells" / "own" / "row.json").read_text() == '{"auroc": 1}'
    assert (two / "cells" / "own" / "predictions.json").read_text() == "predictions"


def test_what_a_run_was_measured_for_goes_with_it(tmp_path):
    def measure(*_):
        return {}

    cells = {name: Cell({"method": name}, Path("a.toml"), {}, measure=measure) for name in "ab"}
    shared = {}
    copy_shared([cells["a"]], tmp_path / "one", shared)
    finish(tmp_path / "one" / "cells" / "a")
    (tmp_path / "one" / "cells" / "a" / "alone.json").write_text("alone")
    copy_shared([cells["b"]], tmp_path / "two", shared)
    copied = tmp_path / "two" / "cells" / "b"
    assert {file.name for file in copied.iterdir()} == {
        "alone.json",
        "predictions.json",
        "row.json",
    }
    assert (copied / "alone.json").read_text() == "alone"


def test_a_run_of_the_table_itself_is_kept(tmp_path):
    shared = {}
    for name, row in (("one", "first"), ("two", "second")):
        finish(tmp_path / name / "cells" / "federated", row)
        copy_shared([Cell({"method": "federated"}, Path("a.toml"), {})], tmp_path / name, shared)
    assert (tmp_path / "two" / "cells" / "federated" / "row.json").read_text() == "second"


def test_the_quick_page_leaves_out_what_is_slow_and_keeps_the_lines_of_a_table():
    main, terms = (quick(part) for part in parts_named(["main", "terms"]))
    assert {"federated", "linear_probe"} <= set(main.methods)
    assert not {"cnn", "pooled", "local_only"} & set(main.methods)
    assert terms.methods == parts_named(["terms"])[0].methods


def test_tables_are_put_into_the_page_one_after_the_other(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- table: {p.name} -->\n<!-- end -->\n" for p in PARTS))
    told, jobs_of = [], {}

    class Module:
        @staticmethod
        def cells(files, shots, seeds, methods):
            return [Cell({"seed": seed}, file, {}) for file in files for seed in seeds]

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
    assert told == [(3, "ablation: last"), (4, "efficiency: last")]
    assert jobs_of == {"ablation": 2, "efficiency": 1}  # time is measured alone
    assert "3 rows" in page.read_text() and "![ablation](results-ablation.png)" in page.read_text()
    assert (tmp_path / "results-efficiency.png").read_bytes() == b"picture"
