"""Federation and baselines of one simulation, where a site is too small for a part of them."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hica.study import changed
from hica.towers import load_image_tower
from hica_client.site import load_site
from hica_simulations.experiments.baselines import clip_lora, cnn
from hica_simulations.experiments.baselines.every_run import simulate_with_baselines
from hica_simulations.experiments.baselines.registry import ON_IMAGES
from hica_simulations.experiments.baselines.shots import ShotBaselines, runnable
from hica_simulations.partitions import build_sites
from hica_simulations.place import Place
from hica_simulations.run import simulate
from hica_simulations.scenario import load_scenario
from hica_simulations.site_files import write_site

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
lloyd_rounds = 1
[alignment]
rounds = 1
shots = 2
views = 2
[calibration]
rounds = 1
[federation]
min_count = 4
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
name = "small" # one test image of each class: too few patients to be evaluated
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
    result = simulate_with_baselines(load_scenario(path), place)
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


def test_sites_that_know_their_prevalence_use_it_with_every_method(tmp_path, plain_torch):
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    found = {}
    for known in ("unknown", "known"):
        short = ["pretraining.rounds=0", "calibration.rounds=0"]
        scenario = load_scenario(path, [f"simulation.prevalence={known}", *short])
        place = Place(tmp_path, tmp_path / known, tmp_path / "cache", "cpu")
        result = simulate(scenario, place)
        folders = build_sites(scenario, place.data, place.out, place.cache)
        sites = [write_site(folder, place.out, place) for folder in folders]
        pixels = ShotBaselines(scenario.study, sites).metrics("pixels")
        assert set(pixels["per_site"]) == set(result["per_site"])
        found[known] = result["per_site"]["large"], pixels["per_site"]["large"]
        for folder, site in zip(folders, sites, strict=True):
            assert load_site(site).data.prevalence == folder.prevalence
    for without, with_it in zip(*found.values(), strict=True):
        assert without["n"] == with_it["n"]
        assert without["ece"] != with_it["ece"]


@pytest.fixture
def with_weights(tmp_path):
    """The scenario with a timm tower whose weights it pins, its site files, and class texts."""
    weights = tmp_path / "tower.safetensors"
    tower = load_image_tower("timm/test_efficientnet", image_size=64)
    save_file(tower.trunk.state_dict(), weights)
    pinned = [
        "model.image=timm/test_efficientnet",
        "model.image_size=64",
        f"model.checkpoint={weights.name}",
        "model.mean=[0.5, 0.5, 0.5]",
        "model.std=[0.5, 0.5, 0.5]",
        f"model.sha256={hashlib.sha256(weights.read_bytes()).hexdigest()}",
        # Under which no federation may train factors; baselines are none.
        "privacy.secure_aggregation=true",
    ]
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    scenario = load_scenario(path, pinned)
    place = Place(tmp_path, tmp_path / "run", tmp_path / "cache", "cpu")
    folders = build_sites(scenario, place.data, place.out, place.cache)
    sites = [write_site(folder, place.out, place) for folder in folders]

    def texts(_, dim):
        return np.linalg.qr(np.random.default_rng(0).standard_normal((dim, 3)))[0].T

    return scenario.study, sites, texts


def test_what_trains_the_tower_is_tested_at_all_sites_and_depends_on_nothing_before(
    with_weights, monkeypatch
):
    monkeypatch.setattr(cnn.fit_predict, "__defaults__", (1,))
    monkeypatch.setattr(clip_lora.fit_predict, "__defaults__", (2,))
    study, sites, texts = with_weights
    together = ShotBaselines(study, sites, texts)
    together.metrics("zero_shot")
    for name in ON_IMAGES:
        found = together.metrics(name)
        assert set(found["per_site"]) == {"large", "unlabelled", "other"}
        assert ShotBaselines(study, sites, texts).metrics(name) == found


def test_untrained_factors_are_zero_shot_on_the_sites_own_features(with_weights, monkeypatch):
    monkeypatch.setattr(clip_lora.fit_predict, "__defaults__", (0,))
    baselines = ShotBaselines(*with_weights)
    lora, zero_shot = (baselines.metrics(name)["auroc"] for name in ("clip_lora", "zero_shot"))
    assert lora == pytest.approx(zero_shot, abs=1e-2)


def test_without_pinned_weights_no_tower_is_trained(with_weights):
    drawn = changed(with_weights[0], {"model": {"checkpoint": None, "sha256": None}})
    assert runnable(drawn, list(ON_IMAGES)) == []
    folder = changed(drawn, {"model": {"image": "hf:clip"}})
    assert runnable(folder, list(ON_IMAGES)) == list(ON_IMAGES)
