"""Trained models of every kind of tower, small and drawn, and what HiCA itself says of images."""

import json
from collections.abc import Callable

import open_clip
import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from hica.export.classifier import Classifier, Exported
from hica.method.model import AlignmentModel
from hica.text.bank import TextBank
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt
from hica.towers.folders import folder_sha256
from hica.towers.layered import LayeredTower

VISION = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
MINIATURES = {
    "export-vit": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True},
    "export-average": {
        "embed_dim": 24,
        "vision_cfg": {**VISION, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": TEXT,
    },
    "export-coca": {
        "embed_dim": 24,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2},
        "text_cfg": TEXT,
    },
    "export-narrow": {"embed_dim": 48, "vision_cfg": VISION, "text_cfg": TEXT},
    "export-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "export-timm": {
        "embed_dim": 24,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT,
    },
}
FACTS = {
    "exported_by": "coordinator",
    "model": "the model that its hospitals share",
    "made": "2026-01-01T00:00:00+00:00",
    "versions": {"hica": "0.1.0"},
}


@pytest.fixture(scope="session")
def of_transformers(tmp_path_factory) -> Callable[[str], dict]:
    """What loads a small `hf:clip` or `hf:siglip`."""
    root = tmp_path_factory.mktemp("weights")
    side = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    vision = {**side, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
    text = {**side, "num_hidden_layers": 1, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    prepared = {
        "size": {"height": 32, "width": 32},
        "resample": 3,
        "do_center_crop": False,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }

    def made(kind: str) -> dict:
        folder = root / kind
        if not folder.exists():
            config, model = {
                "clip": (transformers.CLIPConfig, transformers.CLIPModel),
                "siglip": (transformers.SiglipConfig, transformers.SiglipModel),
            }[kind]
            more = {"projection_dim": 24} if kind == "clip" else {}
            model(config(vision_config=vision, text_config=text, **more)).save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
        return {"weights": root, "sha256": folder_sha256(folder, folder / "model.safetensors")}

    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory, toy_study, of_transformers) -> Callable[..., tuple]:
    """`trained(IMAGE, TRAIN, *overrides, unit=False, layers=0)`: a model, and it as `Exported`.

    Its weights, centre, scale and intercepts are as training could have left them: none is at its
    start.
    """
    folder = tmp_path_factory.mktemp("open_clip")
    for name, config in MINIATURES.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)

    def make(image: str, train: str, *overrides: str, unit: bool = False, layers: int = 0) -> tuple:
        study = toy_study(f"model.train={train}", *overrides)
        size = {"tiny": None, "timm/test_efficientnet": 64}.get(image)
        options = of_transformers(image[3:]) if image.startswith("hf:") else {"image_size": size}
        tower = load_image_tower(image, **options)
        if layers:
            tower = LayeredTower(tower, layers, "fine")
        draws = torch.Generator().manual_seed(1)

        def rows(count: int) -> Tensor:
            drawn = torch.randn(count, tower.dim, generator=draws)
            return functional.normalize(drawn, dim=-1)

        bank = TextBank.assemble(study.class_texts, rows(2), rows(len(study.finding_names)))
        model = AlignmentModel(adapt(tower, train, adapter_width=8), bank, True, unit).eval()
        with torch.no_grad():
            for weight in model.tower.trainable().values():
                size = 0.05 * weight.abs().mean().clamp(min=0.01)
                weight.add_(size * torch.randn(weight.shape, generator=draws))
            side = tower.preprocess.size
            features = model.tower.tower(torch.randn(8, 3, side, side, generator=draws)).pooled
            features = functional.normalize(features, dim=-1) if unit else features
            model.centre.copy_(features.mean(dim=0))
            if not unit:
                model.scale.copy_(0.5 + torch.rand(model.scale.shape, generator=draws))
            model.bias.copy_(torch.tensor([0.3, -0.2]))
        classifier = Classifier(model, study.alignment.temperature, study.alignment.flip_at_test)
        return model, Exported(classifier, study, dict(FACTS))

    return make


@pytest.fixture(scope="session")
def said_by_hica() -> Callable[[AlignmentModel, Tensor, float], Tensor]:
    """Logits [B, C] of colours in one view, by the code that training and evaluation run."""

    @torch.no_grad()
    def logits(model: AlignmentModel, colours: Tensor, temperature: float) -> Tensor:
        pixels, grid = (255 * colours).round().to(torch.uint8), model.tower.tower.grid
        weights = torch.zeros(len(pixels), 1, grid, grid)
        images, _ = model(model.tower.frozen(pixels, weights), weights)
        return images @ model.unit_bank()[0].T / temperature + model.bias

    return logits
