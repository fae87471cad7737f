"""`hugging_face/` loads by transformers' own call, without code of the folder."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from hica.export import hugging_face_form
from hica.export.classifier import NotPossibleError, sample

POSSIBLE = [
    ("timm/test_efficientnet", "last-2", {}, "timm_wrapper"),
    ("timm/test_efficientnet", "adapter", {"unit": True}, "timm_wrapper"),
    ("timm/test_vit", "lora", {}, "timm_wrapper"),
    ("export-vit", "lora", {}, "clip_vision_model"),
    ("hf:clip", "adapter", {}, "clip_vision_model"),
    *(
        pytest.param(*each, marks=pytest.mark.matrix)
        for each in [
            ("export-timm", "last-1", {}, "timm_wrapper"),
            ("hf:clip", "lora", {}, "clip_vision_model"),
            ("hf:siglip", "lora", {}, "siglip_vision_model"),
        ]
    ),
]


@pytest.mark.parametrize(("image", "train", "more", "kind"), POSSIBLE)
def test_logits_are_hicas(trained, said_by_hica, tmp_path, image, train, more, kind):
    model, exported = trained(image, train, **more)
    colours = sample(exported.classifier)
    hugging_face_form.write(tmp_path, exported)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == kind and "auto_map" not in config
    found = hugging_face_form.logits(tmp_path, exported, colours)
    expected = said_by_hica(model, colours, exported.classifier.temperature)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize(
    ("image", "more", "why"),
    [
        ("tiny", {}, "no image tower like tiny"),
        ("timm/test_efficientnet", {"layers": 2}, "no image tower like timm/test_efficientnet"),
        ("export-resnet", {}, "no image tower like export-resnet"),
        ("export-average", {}, "its logits"),
        ("export-coca", {}, "CLIP has no place for this ViT"),
    ],
)
def test_what_transformers_cannot_hold_is_said(trained, tmp_path, image, more, why):
    _, exported = trained(image, "full", **more)
    if image == "export-average":  # loads, and computes another thing: the folder finds that out
        hugging_face_form.write(tmp_path, exported)
        colours = sample(exported.classifier)
        found = hugging_face_form.logits(tmp_path, exported, colours)
        expected = exported.classifier.logits(exported.classifier.embedding(colours))
        assert (found - expected).abs().max() > 1e-2
        return
    with pytest.raises(NotPossibleError, match=why):
        hugging_face_form.write(tmp_path, exported)


def test_another_size_of_images_than_the_folders_is_said(trained, tmp_path):
    _, exported = trained("hf:clip", "full")
    exported.classifier.tower.vision.config.image_size = 64
    with pytest.raises(NotPossibleError, match="images of 32 pixels, and its folder says 64"):
        hugging_face_form.write(tmp_path, exported)


def test_transformers_own_processor_does_what_hica_does(trained, tmp_path):
    _, exported = trained("timm/test_efficientnet", "last-1")
    hugging_face_form.write(tmp_path, exported)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 50, 3), dtype=np.uint8)
    look = exported.classifier.preprocess
    expected = look.normalise(look.pixels(Image.fromarray(pixels))[None])
    found = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_views_are_averaged_by_the_head_as_by_hica(trained, tmp_path):
    from hica.export.standalone.head import Head

    _, exported = trained("timm/test_vit", "adapter")
    classifier = exported.classifier
    hugging_face_form.write(tmp_path, exported)
    colours = sample(classifier)
    with torch.no_grad():
        views = [classifier.features(view) for view in (colours, colours.flip(-1))]
        expected = classifier(colours)[0]
    torch.testing.assert_close(Head(tmp_path)(*views), expected, atol=1e-5, rtol=0)
