import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hica.study import read_toml
from hica_client.app import forget_sessions
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


@pytest.fixture
def _cleaned():
    yield
    torch.use_deterministic_algorithms(False)
    forget_sessions()


@pytest.mark.usefixtures("_cleaned")
def test_the_library_example_trains_and_predicts(tmp_path, capsys):
    """The Python of README.md as it stands, but for a smaller study and another folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(shown.splitlines()) <= 20
    small = ["simulation.phantoms.per_class=8", "simulation.phantoms.size=32", "alignment.rounds=1"]
    small += ["alignment.shots=2", "model.train=adapter", "text.epochs=0", "pretraining.rounds=0"]
    small += ["federation.min_count=3"]
    example = shown.replace('["study.seed=1"]', repr(small))
    example = example.replace('Path("runs/', f'Path("{tmp_path}/')
    example = example.replace('Path("simulations/', f'Path("{ROOT}/simulations/')
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)  # our own text
    assert "['normal', 'smooth', 'spiculated']" in capsys.readouterr().out
    predicted = names["predict"](names["north"], names["model"])
    assert predicted.shape[1] == 3
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-5)
