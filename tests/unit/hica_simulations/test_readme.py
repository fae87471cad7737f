import re
from pathlib import Path

from hica.study import read_toml
from hica_simulations.scenario import load_scenario

ROOT = Path(__file__).parents[3]


def test_the_scenario_shown_to_researchers_is_one(tmp_path):
    """The `[simulation]` table of simulations/README.md, below the study of server/."""
    text = (ROOT / "simulations" / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    study = (ROOT / "server" / "example_study.toml").read_text(encoding="utf-8")
    path = tmp_path / "study.toml"
    path.write_text(study.replace('name = "benign"', 'name = "abnormal"') + shown, encoding="utf-8")
    assert read_toml(path)["simulation"]["labels"]["viral"] == "abnormal"
    sites = load_scenario(path).simulation.sites
    assert [site.name for site in sites] == ["north", "south", "east"]
