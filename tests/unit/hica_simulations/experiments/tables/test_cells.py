from pathlib import Path

from hica_simulations.experiments.tables.cells import Cell


def test_a_cell_has_a_folder_by_its_labels():
    cell = Cell({"study": "s", "method": "in a sum", "epsilon": 3.0}, Path("s.toml"), {})
    assert cell.folder == "s-in_a_sum-3.0"


def test_settings_of_the_command_line_give_way_to_those_of_a_cell(study):
    path = study("phantoms")
    cell = Cell({"seed": 1}, path, {"study": {"seed": 1}}, overrides=("study.seed=9",))
    assert cell.scenario().study.study.seed == 1


def test_the_shared_model_is_measured_where_a_cell_does_not_ask_for_more(study):
    path, personal = study("phantoms"), {"personal": {"epochs": 3}}
    assert Cell({}, path, {}).scenario().study.personal.epochs == 0
    assert Cell({}, path, personal).scenario().study.personal.epochs == 3
