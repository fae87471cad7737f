from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hica.errors import CheckpointError
from hica.regions.sam import Sam


@pytest.fixture
def sam(tiny_sam):
    """Random weights rate themselves low: every mask is let through."""
    return Sam(tiny_sam, points_per_side=1, min_predicted_iou=0.0, min_stability=0.0)


class Proposals:
    """Stands in for the mask generator: row r of the image, with (IoU, stability, area)."""

    def __init__(self, *rated):
        self.rated = rated

    def generate(self, pixels):
        proposals = []
        for row, (predicted_iou, stability, area) in enumerate(self.rated):
            segmentation = np.zeros(pixels.shape[:2], dtype=bool)
            segmentation[row, :area] = True
            proposals.append(
                {
                    "segmentation": segmentation,
                    "area": area,
                    "predicted_iou": predicted_iou,
                    "stability_score": stability,
                }
            )
        return proposals


def test_masks_come_by_certainty_then_area_and_never_empty(images):
    sam = Sam(Path("unused"))
    rated = [(0.9, 0.5, 9), (1.0, 1.0, 0), (0.5, 0.9, 20), (0.7, 0.9, 3), (0.1, 0.1, 30)]
    sam.__dict__["_generator"] = Proposals(*rated)
    rows = [int(mask.any(axis=1).argmax()) for mask in sam(images["noise"], None, 3)]
    assert rows == [3, 2, 0]


def test_the_model_is_loaded_once(sam, images):
    first = sam(images["noise"], None, 3)
    generator = sam._generator
    again = sam(images["noise"], None, 3)
    assert sam._generator is generator
    assert first
    assert np.array_equal(first, again)


def test_loading_leaves_the_callers_seed_alone(sam, images):
    state = torch.get_rng_state()
    sam(images["noise"], None, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_version_names_the_weights_not_their_path(sam, tmp_path):
    moved = tmp_path / "moved.pth"
    moved.write_bytes(sam.checkpoint.read_bytes())
    assert replace(sam, checkpoint=moved).version == sam.version
    assert replace(sam, device="cuda").version == sam.version
    assert replace(sam, points_per_side=4).version != sam.version
    moved.write_bytes(b"other weights")
    assert replace(sam, checkpoint=moved).version != sam.version


def test_missing_checkpoint_names_the_path_and_the_remedy(tmp_path, images):
    missing = Sam(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file.*regions\.checkpoint"):
        missing(images["noise"], None, 1)
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        _ = missing.version


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"cut short"])
def test_unreadable_checkpoint_names_the_file(tiny_sam, tmp_path, images, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(tiny_sam.read_bytes()[:5000] if content == b"cut short" else content)
    with pytest.raises(
        CheckpointError, match=r"broken\.pth: (not a weights file|holds no state dict)"
    ):
        Sam(path)(images["noise"], None, 1)


def test_a_file_that_holds_no_state_dict_is_refused(tiny_sam, tmp_path, images):
    path = tmp_path / "tensor.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(
        CheckpointError, match=r"tensor\.pth: (not a weights file|holds no state dict)"
    ):
        Sam(path)(images["noise"], None, 1)


def test_weights_of_another_model_name_the_setting_to_change(tiny_sam, tmp_path, images):
    weights = torch.load(tiny_sam, weights_only=True)
    weights["image_encoder.pos_embed"] = torch.zeros(1, 1, 1, 1024)
    path = tmp_path / "large.pth"
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r'of vit_l: set regions\.model = "vit_l"'):
        Sam(path)(images["noise"], None, 1)


def test_weights_of_no_sam_at_all_are_refused(tiny_sam, tmp_path, images):
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(
        CheckpointError, match=r"vit_b model \(regions\.model\); set regions\.check"
    ):
        Sam(path)(images["noise"], None, 1)


@pytest.mark.parametrize("kind", ["module", "model", "half", "lightning", "safetensors"])
def test_a_retrained_sam_as_programs_save_it(tiny_sam, tmp_path, images, sam, kind):
    """MedSAM's training saves {"model": …}; DataParallel and Lightning put words before names."""
    plain = torch.load(tiny_sam, weights_only=True)
    path = tmp_path / "medsam.pth"
    stored = {
        "module": {f"module.{name}": value for name, value in plain.items()},
        "model": {"model": plain, "optimizer": {"state": {}}, "epoch": 3},
        "half": {"model": {f"module.{name}": value.bfloat16() for name, value in plain.items()}},
        "lightning": {"state_dict": {f"model.{name}": value for name, value in plain.items()}},
        "safetensors": plain,
    }[kind]
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(plain, path)
    else:
        torch.save(stored, path)
    expected = {
        name: value.bfloat16().float() if kind == "half" else value for name, value in plain.items()
    }
    loaded = replace(sam, checkpoint=path)._generator.predictor.model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


def test_a_sam_with_a_weight_that_is_nan(tiny_sam, tmp_path, images):
    plain = torch.load(tiny_sam, weights_only=True)
    plain["mask_decoder.iou_token.weight"][0, 0] = torch.nan
    torch.save(plain, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"nan\.pth: mask_decoder\.iou_token\.weight: NaN or"):
        Sam(tmp_path / "nan.pth")(images["noise"], None, 1)


def test_the_registrys_own_vit_b_loads_and_gives_masks(tmp_path, images):
    """All 94 M parameters are saved and loaded; to save time one of the 12 blocks runs."""
    from segment_anything import sam_model_registry

    path = tmp_path / "sam_vit_b_random.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    sam = Sam(path, points_per_side=1, min_predicted_iou=0.0, min_stability=0.0)
    encoder = sam._generator.predictor.model.image_encoder
    assert len(encoder.blocks) == 12
    encoder.blocks = encoder.blocks[:1]

    masks = sam(images["noise"], None, 2)

    path.unlink()  # 375 MB
    assert 1 <= len(masks) <= 2
    assert all(mask.shape == (64, 64) and mask.dtype == bool and mask.any() for mask in masks)
