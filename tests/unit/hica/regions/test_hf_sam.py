import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hica.errors import CheckpointError
from hica.regions.hf_sam import HfSam, _grid

from .conftest import FAMILY

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lenient(checkpoint, weights):
    """Random weights rate themselves low: every mask is let through."""
    return HfSam(
        checkpoint,
        weights,
        points_per_side=2,
        min_predicted_iou=float("-inf"),
        min_stability=0.0,
    )


@pytest.fixture
def copied(tiny_family, tmp_path):
    """A folder of weights with a copy of the tiny SAM, to be spoilt."""
    shutil.copytree(tiny_family / "sam", tmp_path / "weights" / "sam")
    return tmp_path / "weights"


@pytest.fixture
def hub(tiny_family, tmp_path, monkeypatch):
    """The hub's cache with one model, `owner/tiny`; there is no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(tiny_family / "sam", model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return model


@pytest.mark.parametrize("overlap", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("kind", FAMILY)
def test_masks_are_those_of_transformers_own_pipeline(tiny_family, images, kind, overlap):
    from transformers.pipelines.mask_generation import MaskGenerationPipeline

    sam = replace(lenient(kind, tiny_family), max_overlap=overlap)
    processor, network = sam._loaded
    pipeline = MaskGenerationPipeline(model=network, image_processor=processor)
    expected = pipeline(
        Image.fromarray(images["lesion"]),
        points_per_crop=2,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        crops_nms_thresh=overlap,
    )["masks"]
    found = sam(images["lesion"], None, 100)
    assert found
    assert all(mask.dtype == bool and mask.shape == (64, 64) and mask.any() for mask in found)
    assert {mask.tobytes() for mask in found} == {
        np.asarray(mask).tobytes() for mask in expected if np.asarray(mask).any()
    }


def test_masks_come_by_certainty_then_area_and_never_empty():
    """Row r holds a mask of the given area; stability is the share of pixels beyond 1."""
    rated = [(0.9, 6, 9), (1.0, 0, 0), (0.5, 20, 20), (0.7, 3, 3), (0.5, 30, 30)]
    logits = torch.full((len(rated), 64, 64), -5.0)
    for row, (_, firm, area) in enumerate(rated):
        logits[row, row, :area] = 0.5
        logits[row, row, :firm] = 5.0
    iou = torch.tensor([rate for rate, _, _ in rated])
    sam = HfSam("unused", min_stability=0.5)
    rows = [int(mask.any(axis=1).argmax()) for mask in sam._choose(logits, iou, 4)]
    assert rows == [3, 0, 4, 2]
    rows = [
        int(mask.any(axis=1).argmax())
        for mask in replace(sam, min_stability=0.7)._choose(logits, iou, 2)
    ]
    assert rows == [3, 4]
    assert sam._choose(logits[1:2], iou[1:2], 4) == []


def test_of_two_masks_of_one_thing_the_better_rated_stays():
    logits = torch.full((3, 64, 64), -5.0)
    logits[0, :20, :20] = logits[1, :20, :21] = logits[2, 40:50, 40:50] = 5.0
    found = HfSam("unused")._choose(logits, torch.tensor([0.9, 0.95, 0.91]), 4)
    assert [int(mask.sum()) for mask in found] == [420, 100]


def test_masks_the_model_rates_low_are_dropped(tiny_family, images):
    sam = lenient("sam", tiny_family)
    assert replace(sam, min_predicted_iou=float("inf"))(images["lesion"], None, 4) == []
    assert replace(sam, min_stability=1.1)(images["lesion"], None, 4) == []


def test_points_are_the_centres_of_cells_row_by_row():
    expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert _grid(2).tolist() == expected


def test_the_model_is_loaded_once_and_leaves_the_callers_seed_alone(tiny_family, images):
    sam = lenient("sam", tiny_family)
    state = torch.get_rng_state()
    first = sam(images["noise"], None, 3)
    loaded = sam._loaded
    assert np.array_equal(first, sam(images["noise"], None, 3))
    assert sam._loaded is loaded
    assert torch.equal(torch.get_rng_state(), state)


def test_version_names_the_weights_not_their_path(tiny_family, copied):
    original, copy = HfSam("sam", tiny_family), HfSam(copied / "sam", device="cuda")
    assert copy.version == original.version
    assert replace(copy, points_per_side=4).version != original.version
    path = copied / "sam" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    assert HfSam("sam", copied).version != original.version


def test_weights_of_the_older_kind_give_the_same_masks(tiny_family, copied, images):
    path = copied / "sam" / "model.safetensors"
    torch.save(load_file(path), copied / "sam" / "pytorch_model.bin")
    path.unlink()
    older = lenient("sam", copied)
    expected = lenient("sam", tiny_family)
    assert np.array_equal(older(images["noise"], None, 3), expected(images["noise"], None, 3))
    assert older.version != expected.version


def test_a_name_is_looked_up_in_the_cache_of_the_hub(hub, tiny_family, tmp_path, images):
    sam, expected = lenient(f"owner/tiny@{COMMIT}", tmp_path), lenient("sam", tiny_family)
    assert sam.version == expected.version
    assert np.array_equal(sam(images["noise"], None, 3), expected(images["noise"], None, 3))


def test_a_folder_goes_before_a_name_on_the_hub(hub, tiny_family, tmp_path):
    shutil.copytree(tiny_family / "sam2", tmp_path / "owner" / "tiny")
    assert lenient("owner/tiny", tmp_path).version == lenient("sam2", tiny_family).version


@pytest.mark.parametrize("name", ["owner/absent", "owner/tiny@other", "no/such/name"])
def test_a_missing_model_names_the_setting_and_the_remedy(hub, tmp_path, images, name):
    missing = lenient(name, tmp_path / "weights")
    with pytest.raises(CheckpointError) as caught:
        missing(images["noise"], None, 1)
    assert f"regions.checkpoint: {tmp_path / 'weights' / name} is no folder" in str(caught.value)
    assert f"hf download {name.partition('@')[0]}" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"regions\.checkpoint"):
        _ = missing.version


def spoil_nothing_there(folder):
    for path in folder.iterdir():
        path.unlink()


def spoil_no_processor(folder):
    (folder / "preprocessor_config.json").unlink()


def spoil_no_weights(folder):
    (folder / "model.safetensors").unlink()


def spoil_garbage(folder):
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")


def spoil_other_model(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))


def spoil_missing_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("mask_decoder.iou_token.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def spoil_other_shape(folder):
    weights = load_file(folder / "model.safetensors")
    weights["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_nothing_there,
        spoil_no_processor,
        spoil_no_weights,
        spoil_garbage,
        spoil_other_model,
        spoil_missing_weight,
        spoil_other_shape,
    ],
)
def test_a_folder_that_is_no_such_model_is_named(copied, images, spoil):
    spoil(copied / "sam")
    with pytest.raises(CheckpointError) as caught:
        lenient("sam", copied)(images["noise"], None, 1)
    message = str(caught.value)
    assert f"{copied / 'sam'}: not a whole model that makes masks (" in message
    assert message.endswith("correct regions.checkpoint")
    if spoil is spoil_missing_weight:
        assert "mask_decoder.iou_token.weight" in message


def test_code_that_a_model_brings_along_is_not_run(copied, images, tmp_path):
    folder = copied / "sam"
    config = json.loads((folder / "config.json").read_text())
    names = {
        "AutoConfig": "evil.Config",
        "AutoModelForMaskGeneration": "evil.Model",
        "AutoImageProcessor": "evil.Processor",
    }
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": names}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert lenient("sam", copied)(images["noise"], None, 1)
    assert not (tmp_path / "ran").exists()
