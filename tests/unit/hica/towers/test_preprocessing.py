"""Weights without their transform are refused, and so are two that say different ones."""

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from hica.errors import CheckpointError, ConfigurationError
from hica.images.cache import file_sha256
from hica.images.preprocess import Preprocess
from hica.towers import ImageTower, load_image_tower
from hica.towers.layered import LayeredTower
from hica.towers.preprocessing import told, transform_json

HALF = (0.5, 0.5, 0.5)
SAID = {
    "size": 96,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
    "interpolation": "bicubic",
    "resize": "longest",
    "pad_type": "same",
}


@pytest.fixture(scope="module")
def donor(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("donor") / "donor.safetensors"
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def weights(donor, tmp_path) -> Path:
    path = tmp_path / "tower.safetensors"
    path.write_bytes(donor.read_bytes())
    return path


def load(weights: Path, **study) -> ImageTower:
    pinned = {"checkpoint": weights, "sha256": file_sha256(weights)}
    return load_image_tower("timm/test_efficientnet", **pinned, **study)


def beside(weights: Path, **table) -> None:
    weights.with_suffix(".json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("study", "missing"),
    [
        ({}, r"model\.mean and model\.std"),
        ({"mean": HALF}, r"model\.std"),
        ({"std": HALF}, r"model\.mean"),
        ({"pretrained": "r160_in1k"}, r"model\.mean and model\.std"),
        ({"image_size": 96, "pad_type": "same"}, r"model\.mean and model\.std"),
    ],
)
def test_a_bare_file_is_refused(weights, study, missing) -> None:
    words = (
        rf"tower\.safetensors: nothing says .*Write {missing} into the study, or put tower\.json"
    )
    with pytest.raises(CheckpointError, match=words):
        load(weights, **study)


def test_a_json_that_says_nothing_of_it_does_not_help(weights) -> None:
    beside(weights, sha256=file_sha256(weights), author="somebody")
    with pytest.raises(CheckpointError, match="nothing says how images are prepared"):
        load(weights)


def test_what_the_study_says_is_taken_and_the_rest_is_told(weights) -> None:
    tower = load(weights, mean=HALF, std=HALF)
    assert tower.preprocess == Preprocess(160, HALF, HALF, "bicubic", "squash")
    assert told(tower) == {
        "size": "160 (timm's test_efficientnet)",
        "mean": "0.5 0.5 0.5 (study)",
        "std": "0.5 0.5 0.5 (study)",
        "interpolation": "bicubic (timm's test_efficientnet)",
        "resize": "squash, which loses the aspect ratio (HiCA's, for timm)",
        "pad_type": "as built (timm's test_efficientnet)",
    }


def test_the_json_beside_the_weights_is_used(weights) -> None:
    beside(weights, sha256=file_sha256(weights), preprocess=SAID, author="somebody")
    tower = load(weights)
    assert json.loads(json.dumps(transform_json(tower))) == SAID
    assert set(tower.sources.values()) == {"tower.json"}
    padded = load(weights, pad_type="same", mean=tuple(SAID["mean"]))
    assert padded.fingerprint == tower.fingerprint
    assert (padded.sources["mean"], padded.sources["std"]) == ("study", "tower.json")


def test_another_transform_is_another_tower(weights) -> None:
    found = set()
    for change in ({}, {"pad_type": ""}, {"resize": "squash"}, {"size": 64}):
        beside(weights, preprocess={**SAID, **change})
        found.add(load(weights).fingerprint)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (
            {"mean": HALF},
            r"model\.mean = 0\.5 0\.5 0\.5, but .*tower\.json says mean = 0\.5 0\.4 0\.3",
        ),
        (
            {"std": HALF},
            r"model\.std = 0\.5 0\.5 0\.5, but .*tower\.json says std = 0\.2 0\.2 0\.2",
        ),
        ({"image_size": 64}, r"model\.image_size = 64, but .*tower\.json says size = 96"),
    ],
)
def test_study_and_json_that_differ(weights, study, words) -> None:
    beside(weights, preprocess=SAID)
    with pytest.raises(CheckpointError, match=words):
        load(weights, **study)


def test_a_padding_that_differs(weights) -> None:
    beside(weights, preprocess={**SAID, "pad_type": ""})
    with pytest.raises(CheckpointError, match=r"model\.pad_type = same, but .* pad_type = ''"):
        load(weights, pad_type="same")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"sha256": "0" * 64, "preprocess": SAID}, "sha256: 0000.* is of other weights"),
        ({"preprocess": {**SAID, "size": 0}}, r"preprocess\.size: .*mend the file"),
        ({"preprocess": {**SAID, "std": [0, 1, 1]}}, r"preprocess\.std\.0: .*mend the file"),
        ({"preprocess": {**SAID, "crop": 0.9}}, r"preprocess\.crop: unknown key"),
        ({"preprocess": {"mean": HALF}}, r"preprocess\.size: Field required"),
    ],
)
def test_a_json_that_cannot_be_used(weights, table, words) -> None:
    beside(weights, **table)
    with pytest.raises(CheckpointError, match=f"(?s)tower.json: {words}"):
        load(weights, mean=HALF, std=HALF)


def test_a_damaged_json_and_one_that_lies_elsewhere(weights, tmp_path) -> None:
    path = weights.with_suffix(".json")
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"tower\.json: not JSON"):
        load(weights)
    path.unlink()
    path.symlink_to(tmp_path.parent / "elsewhere.json")
    (tmp_path.parent / "elsewhere.json").write_text("{}")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        load(weights)


def test_the_settings_of_a_tag_are_those_of_its_file(donor, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(donor))
    pinned = {"pretrained": "r160_in1k", "sha256": file_sha256(donor)}
    tower = load_image_tower("timm/test_efficientnet", **pinned)
    assert tower.sources["mean"] == "timm's test_efficientnet.r160_in1k"
    with pytest.raises(CheckpointError, match=r"mean = 0\.5 .*timm's test_efficientnet\.r160_in1k"):
        load_image_tower("timm/test_efficientnet", **pinned, mean=HALF)


def test_drawn_weights_need_none() -> None:
    assert load_image_tower("timm/test_efficientnet").sources["mean"] == "timm's test_efficientnet"
    tiny = load_image_tower("tiny", mean=HALF)
    assert told(tiny)["mean"] == "0.5 0.5 0.5 (study)"
    assert told(tiny)["size"] == "64 (built in)"


def test_layers_pass_on_what_is_told(weights) -> None:
    beside(weights, preprocess=SAID)
    tower = load(weights)
    assert told(LayeredTower(tower, 1, "fine")) == told(tower)


def test_padding_of_the_json_is_for_timm_alone(weights) -> None:
    beside(weights, preprocess=SAID)
    with pytest.raises(ConfigurationError, match=r"only timm/… towers have one"):
        load_image_tower("ViT-B-16", checkpoint=weights, sha256=file_sha256(weights))
