import pytest

from hica.errors import ConfigurationError
from hica_simulations.run import claim
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
