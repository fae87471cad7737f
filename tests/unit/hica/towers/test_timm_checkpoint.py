"""Weights of timm models as people have them: other sizes, other heads, other names."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed

from hica.errors import ConfigurationError, WeightsError
from hica.images.cache import file_sha256
from hica.towers import load_image_tower
from hica.towers.layered import LayeredTower
from hica.towers.timm_checkpoint import load_checkpoint
from hica.towers.timm_tower import TimmTower

HALF = (0.5, 0.5, 0.5)


def saved(path: Path, stored: object) -> Path:
    torch.save(stored, path)
    return path


def load(name: str, path: Path, **more: object) -> TimmTower:
    pinned = {"checkpoint": path, "sha256": file_sha256(path), "mean": HALF, "std": HALF}
    return load_image_tower(f"timm/{name}", **pinned, **more)


@torch.no_grad()
@pytest.mark.parametrize("size", [96, 160, 224])
def test_positions_are_resampled_by_timms_own_function(tmp_path, size, caplog) -> None:
    donor = timm.create_model("test_vit", num_classes=7)
    path = saved(tmp_path / "vit.pth", donor.state_dict())
    with caplog.at_level(logging.INFO, "hica"):
        tower = load("test_vit", path, image_size=size)
    side = size // 16
    expected = resample_abs_pos_embed(donor.pos_embed, [side, side], num_prefix_tokens=1)
    assert tower.grid == side and torch.allclose(tower.trunk.pos_embed, expected, atol=1e-6)
    assert ("positions of 101 tokens resampled" in caplog.text) == (size != 160)
    assert "head.bias, head.weight: a head that is not used, left out" in caplog.text


def test_weights_of_other_patches_are_refused(tmp_path) -> None:
    donor = timm.create_model("test_vit", num_classes=0, patch_size=8)
    path = saved(tmp_path / "vit8.pth", donor.state_dict())
    with pytest.raises(WeightsError, match="its patches are 8 pixels wide, the model's 16; name"):
        load("test_vit", path)


def distilled(**more: object) -> torch.nn.Module:
    return timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=32, depth=2, embed_dim=32, num_heads=2, **more
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}])
def test_both_heads_of_deit_are_left_out(tmp_path, wrap) -> None:
    donor, trunk = distilled(num_classes=5), distilled(num_classes=0)
    load_checkpoint(trunk, saved(tmp_path / "deit.pth", wrap(donor.state_dict())), None, "deit")
    donor.reset_classifier(0)
    images = torch.randn(2, 3, 32, 32)
    tower = TimmTower(trunk, "deit", type(load_image_tower("tiny").preprocess)(32, HALF, HALF))
    assert torch.equal(tower(images).pooled, donor(images))


@torch.no_grad()
def test_both_heads_of_deit_serve_where_a_pair_keeps_them() -> None:
    trunk = distilled(num_classes=6)
    tower = TimmTower(trunk, "deit", type(load_image_tower("tiny").preprocess)(32, HALF, HALF))
    images = torch.randn(2, 3, 32, 32)
    tokens = trunk.forward_features(images)
    expected = (trunk.head(tokens[:, 2:]) + trunk.head_dist(tokens[:, 2:])) / 2
    encoded = tower(images)
    assert torch.allclose(encoded.pooled, trunk(images), atol=1e-6)
    assert torch.allclose(encoded.patches, expected, atol=1e-6)


def small_dino() -> torch.nn.Module:
    return timm.create_model(
        "vit_small_patch14_reg4_dinov2",
        num_classes=0,
        img_size=28,
        depth=1,
        embed_dim=16,
        num_heads=2,
    )


@pytest.mark.parametrize("kind", ["DINOv2's own", "two networks", "one after the other"])
def test_names_of_the_authors_are_converted_by_timm(tmp_path, kind) -> None:
    """DINOv2 has a mask token, and calls its registers otherwise; DINO keeps two networks."""
    donor, trunk = small_dino(), small_dino()
    state = donor.state_dict()
    own = {key.replace("reg_token", "register_tokens"): value for key, value in state.items()}
    # Its class token has a position, for which timm's model has no place of its own.
    own["pos_embed"] = torch.cat([torch.zeros(1, 1, 16), state["pos_embed"]], dim=1)
    own["mask_token"] = torch.zeros(1, 16)
    both = {f"backbone.{key}": value for key, value in own.items()}
    both["head.mlp.0.weight"] = torch.zeros(1)
    stored = {
        "DINOv2's own": own,
        "two networks": {"student": {}, "teacher": both, "epoch": 3},
        "one after the other": {
            "model": {f"{side}.{k}": v for side in ("student", "teacher") for k, v in both.items()}
        },
    }[kind]
    load_checkpoint(trunk, saved(tmp_path / "dino.pth", stored), None, "dino")
    assert torch.equal(trunk.reg_token, donor.reg_token)
    assert torch.allclose(trunk.pos_embed, donor.pos_embed)


def test_a_masked_autoencoders_decoder_is_left_out(tmp_path) -> None:
    donor = timm.create_model("test_vit", num_classes=0)
    own = {**donor.state_dict(), "mask_token": torch.zeros(1, 1, 8)}
    own |= {"decoder_embed.weight": torch.zeros(8, 8), "decoder_blocks.0.norm1.bias": torch.ones(8)}
    tower = load("test_vit", saved(tmp_path / "mae.pth", {"model": own}))
    assert torch.equal(tower.trunk.pos_embed, donor.pos_embed)


def test_anything_else_that_is_left_over_is_refused(tmp_path) -> None:
    donor = timm.create_model("test_vit", num_classes=0)
    own = {**donor.state_dict(), "neck.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"unexpected: neck\.weight"):
        load("test_vit", saved(tmp_path / "own.pth", own))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("vit_small_patch14_reg4_dinov2", 56, {"depth": 2, "embed_dim": 32, "num_heads": 2}),
        ("eva02_tiny_patch14_224", 56, {"depth": 2, "embed_dim": 48, "num_heads": 2}),
        (
            "swin_tiny_patch4_window7_224",
            64,
            {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
        ),
        ("fastvit_t8", 64, {"layers": (1,) * 4, "embed_dims": (16,) * 4}),
    ],
)
def test_families_are_taken_apart(name, size, arguments) -> None:
    sized = {} if name.startswith("fastvit") else {"img_size": size}
    trunk = timm.create_model(name, num_classes=0, **sized, **arguments).eval()
    tower = TimmTower(trunk, name, type(load_image_tower("tiny").preprocess)(size, HALF, HALF))
    images = torch.randn(2, 3, size, size)
    whole = tower(images)
    assert torch.allclose(whole.pooled, trunk(images), atol=1e-5)
    for last in range(tower.depth + 1):
        parts = tower.suffix(tower.prefix(images, last), last)
        assert torch.equal(parts.patches, whole.patches)
    grid = trunk.forward_features(images)
    if name.startswith("swin"):  # the mean of what lies at each place, channels last there
        assert torch.allclose(whole.patches, grid.flatten(1, 2), atol=1e-5)
        layered = LayeredTower(tower, 1, "fine")(images)
        assert torch.allclose(layered.patches[..., :32], grid.flatten(1, 2), atol=1e-5)


def test_a_size_that_the_model_does_not_take() -> None:
    with pytest.raises(ConfigurationError, match=r"test_vit.*100.*model\.image_size"):
        load_image_tower("timm/test_vit", image_size=100)
