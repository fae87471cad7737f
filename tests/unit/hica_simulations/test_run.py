import json

import pytest

from hica.errors import ConfigurationError
from hica_simulations.place import Place
from hica_simulations.run import PREDICTIONS, claim, finished_result, simulate
from hica_simulations.scenario import load_scenario

SCENARIO = """
[study]
name = "test"
[[classes]]
name = "clear"
prompts = ["clear lungs"]
[[classes]]
name = "nodule"
prompts = ["a nodule"]
[simulation.phantoms]
modality = "xray"
[[simulation.sites]]
name = "north"
"""


@pytest.mark.parametrize("change", ["study.seed=1", "simulation.test_fraction=0.5"])
def test_a_folder_belongs_to_one_study_and_its_sites(tmp_path, change):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    out = tmp_path / "run"
    claim(out, load_scenario(path))
    claim(out, load_scenario(path))  # the same again: a run that is resumed
    before = (out / "scenario.toml").read_text()
    with pytest.raises(ConfigurationError, match=r"another study or of other sites.*--out"):
        claim(out, load_scenario(path, [change]))
    assert (out / "scenario.toml").read_text() == before


def test_a_folder_is_known_again_however_its_scenario_was_written(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    out = tmp_path / "run"
    claim(out, load_scenario(path))
    written = out / "scenario.toml"
    written.write_text("# by hand\n" + written.read_text().replace(chr(34), "'"))
    claim(out, load_scenario(path))
    written.write_text("no TOML")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        claim(out, load_scenario(path))


def test_a_secure_sum_needs_sites_that_keep_their_memory(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    place = Place(tmp_path, tmp_path / "out", tmp_path / "cache", engine="flower")
    scenario = load_scenario(path, ["privacy.secure_aggregation=true"])
    with pytest.raises(ConfigurationError, match="use --engine grid"):
        simulate(scenario, place)
    assert not place.out.exists()


def test_a_run_killed_before_its_predictions_were_written_is_not_finished(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    study = load_scenario(path).study
    (tmp_path / "result.json").write_text(
        json.dumps({"study_sha256": study.sha256, "baselines": {}})
    )
    assert finished_result(tmp_path, study) is None
    (tmp_path / PREDICTIONS).write_text("{}")
    assert finished_result(tmp_path, study) is not None
