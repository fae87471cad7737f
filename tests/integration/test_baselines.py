"""Federation and baselines of one simulation, where a site is too small for a part of them."""

import pytest
import torch

from hica_simulations.run import Place, simulate
from hica_simulations.scenario import load_scenario

SCENARIO = """
[study]
name = "baselines"
[model]
train = "adapter"
adapter_width = 8
[text]
epochs = 1
[[classes]]
name = "normal"
prompts = ["normal tissue"]
[[classes]]
name = "smooth"
prompts = ["an oval mass with a smooth margin"]
[[classes]]
name = "spiculated"
prompts = ["an irregular mass with spicules"]
[pretraining]
rounds = 1
clusters = 3
[alignment]
rounds = 1
shots = 2
views = 2
[regions]
method = "grid"
[simulation]
test_fraction = 0.5
[simulation.phantoms]
modality = "ultrasound"
per_class = 8
size = 32
[[simulation.sites]]
name = "large"
[[simulation.sites]]
name = "unlabelled"
labelled = false
[[simulation.sites]]
name = "small" # one test image of each class: fewer patients than federation.min_count
part = "1/4"
[[simulation.sites]]
name = "other"
"""


@pytest.fixture
def plain_torch():
    yield
    torch.use_deterministic_algorithms(False)


def test_every_method_is_tested_where_the_federation_is_and_trains_where_it_can(
    tmp_path, plain_torch
):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    place = Place(tmp_path, tmp_path / "run", tmp_path / "cache", "cpu")
    result = simulate(load_scenario(path), place)
    labelled = {site: table["labelled"] for site, table in result["sites"].items()}
    assert labelled == {"large": 6, "unlabelled": 0, "small": 3, "other": 6}
    tested = {"large", "unlabelled", "other"}
    assert set(result["per_site"]) == tested
    baselines = result["baselines"]
    assert set(baselines) == {"zero_shot", "pixels", "local_only", "pooled"}
    for name, baseline in baselines.items():
        trained = {"large", "other"} if name == "local_only" else tested
        assert set(baseline["per_site"]) == trained, name
    assert baselines["pooled"]["n"] == result["final"]["n"]
