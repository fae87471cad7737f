from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from hica.errors import CheckpointError, ConfigurationError
from hica.images.cache import file_sha256
from hica.towers import load_image_tower
from hica.towers.timm_tower import TimmTower

DATA = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"
MOBILENET = DATA / "weights" / "mobilenetv2_100.imagenet.fp16.safetensors"
HALF = (0.5, 0.5, 0.5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit"])
def test_pooled_is_timms_own(name) -> None:
    tower = load_image_tower(f"timm/{name}", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(tower(images).pooled, tower.trunk(images), atol=1e-5)


@torch.no_grad()
def test_patches_average_to_the_image_of_a_convolutional_net() -> None:
    pooled, patches = load_image_tower("timm/test_efficientnet")(torch.randn(2, 3, 64, 64))
    assert torch.allclose(pooled, patches.mean(dim=1), atol=1e-5)


@torch.no_grad()
def test_patches_of_a_vit_are_its_normed_tokens_without_prefix() -> None:
    tower = load_image_tower("timm/test_vit", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    tokens = tower.trunk.forward_features(images)
    assert torch.allclose(tower(images).patches, tokens[:, 1:], atol=1e-5)


@torch.no_grad()
def test_attention_pooling_of_one_patch_is_that_patch_in_the_joint_space() -> None:
    trunk = timm.create_model(
        "test_vit", num_classes=0, global_pool="map", class_token=False, img_size=32
    )
    preprocess = load_image_tower("tiny").preprocess
    tower = TimmTower(trunk, "x", type(preprocess)(32, HALF, HALF))
    hidden = torch.randn(2, 4, 64)
    _, patches = tower.head(hidden)
    pooled, _ = tower.head(hidden[:, 2:3])
    assert torch.allclose(patches[:, 2], pooled, atol=1e-5)


def test_defaults_come_from_timm_and_the_study_goes_before() -> None:
    transform = load_image_tower("timm/resnet18").preprocess
    assert (transform.size, transform.mean) == (224, timm.data.IMAGENET_DEFAULT_MEAN)
    transform = load_image_tower("timm/test_vit", image_size=64, mean=HALF, std=HALF).preprocess
    assert (transform.size, transform.mean, transform.std) == (64, HALF, HALF)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_checkpoint_with_classifier_is_loaded(tmp_path, suffix) -> None:
    donor = timm.create_model("test_efficientnet", num_classes=1000)
    path = tmp_path / f"weights{suffix}"
    state = {name: value.half().contiguous() for name, value in donor.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    tower = load_image_tower(
        "timm/test_efficientnet",
        checkpoint=path,
        sha256=file_sha256(path),
        mean=HALF,
        std=HALF,
        seed=9,
    )
    assert torch.equal(tower.trunk.conv_stem.weight, donor.conv_stem.weight.half().float())
    assert not tower.trunk.training


def test_checkpoint_of_another_model(tmp_path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    with pytest.raises(
        CheckpointError, match=r"resnet\.pth: not weights of timm/test_efficientnet"
    ):
        load_image_tower("timm/test_efficientnet", checkpoint=path)


def test_unknown_model_suggests_near_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no such model; near ones: .*mobilenetv2_100"):
        load_image_tower("timm/mobilenet_v2_100")


def test_unknown_tag_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r'"openai": .* it has ra_in1k'):
        load_image_tower("timm/mobilenetv2_100", pretrained="openai")


def test_weights_that_cannot_be_fetched(monkeypatch) -> None:
    def refuse(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(CheckpointError, match=r"no route to host.*below the folder of weights"):
        load_image_tower("timm/mobilenetv2_100", pretrained="ra_in1k", sha256="0" * 64, hubs=True)


def test_weights_of_a_tag_are_read_from_the_file_that_is_pinned(monkeypatch, tmp_path) -> None:
    donor = timm.create_model("test_efficientnet", num_classes=1000)
    path = tmp_path / "model.safetensors"
    save_file(donor.state_dict(), path)
    asked = []

    def fetch(repository, file, local_files_only):
        asked.append((repository, file, local_files_only))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    pinned = {"pretrained": "r160_in1k", "sha256": file_sha256(path)}
    tower = load_image_tower("timm/test_efficientnet", **pinned)
    assert torch.equal(tower.trunk.conv_stem.weight, donor.conv_stem.weight)
    assert asked == [("timm/test_efficientnet.r160_in1k", "model.safetensors", True)]
    with pytest.raises(CheckpointError, match="other weights than the study's"):
        load_image_tower("timm/test_efficientnet", pretrained="r160_in1k", sha256="0" * 64)


def test_setting_the_model_does_not_take() -> None:
    with pytest.raises(ConfigurationError, match=r"pad_type.*remove model.pad_type"):
        load_image_tower("timm/test_vit", pad_type="same")


def test_model_without_a_square_of_patches() -> None:
    trunk = timm.create_model("test_efficientnet", num_classes=0)
    trunk.forward_features = lambda images: images.new_zeros(len(images), 256, 2, 3)
    trunk.blocks = torch.nn.Sequential()
    trunk.conv_stem = torch.nn.AdaptiveAvgPool2d((2, 3))
    trunk.bn1 = trunk.conv_head = trunk.bn2 = torch.nn.Identity()
    preprocess = load_image_tower("tiny").preprocess
    with pytest.raises(
        ConfigurationError, match=r"6 patches .* no square grid .* use another model"
    ):
        TimmTower(trunk, "odd", preprocess)


@pytest.mark.real_data
@pytest.mark.skipif(not MOBILENET.exists(), reason="shared/data/weights is not here")
@torch.no_grad()
def test_mobilenet_with_real_weights_needs_its_padding() -> None:
    images = sorted((DATA / "busi").rglob("*.png"))[:4]
    assert images, "shared/data/busi holds no images"
    encoded = {}
    for pad_type in ("same", ""):
        tower = load_image_tower(
            "timm/mobilenetv2_100",
            checkpoint=MOBILENET,
            sha256=file_sha256(MOBILENET),
            pad_type=pad_type,
            mean=HALF,
            std=HALF,
        )
        pixels = torch.stack([tower.preprocess.pixels(Image.open(path)) for path in images])
        encoded[pad_type] = tower(tower.preprocess.normalise(pixels))
        assert tower.depth == 7 and encoded[pad_type].pooled.shape == (len(images), 1280)
        assert encoded[pad_type].patches.shape == (len(images), 49, 1280)
    cosine = functional.cosine_similarity(encoded["same"].pooled, encoded[""].pooled)
    assert np.all(cosine.numpy() < 0.9)
