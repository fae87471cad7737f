"""`open_clip/` loads by open_clip's own call and gives HiCA's logits, or it says why not."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from hica.export import open_clip_form
from hica.export.classifier import NotPossibleError, sample

POSSIBLE = [
    ("timm/test_efficientnet", "last-2"),
    ("timm/test_efficientnet", "lora"),
    ("timm/test_vit", "full"),
    ("export-vit", "last-2"),
    ("export-vit", "lora"),
    ("export-average", "last-1"),
    ("export-coca", "lora"),
    ("export-resnet", "last-1"),
    ("export-timm", "last-1"),
    ("export-narrow", "last-1"),  # a mean of its features is one that its norm can give
]


@pytest.mark.parametrize(("image", "train"), POSSIBLE)
def test_logits_are_hicas(trained, said_by_hica, tmp_path, image, train):
    model, exported = trained(image, train)
    colours = sample(exported.classifier)
    open_clip_form.write(tmp_path, exported)
    found = open_clip_form.logits(tmp_path, exported, colours)
    expected = said_by_hica(model, colours, exported.classifier.temperature)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("image", "train", "more", "why"),
    [
        ("timm/test_vit", "adapter", {}, "the layer after the tower has no place in open_clip"),
        ("timm/test_efficientnet", "last-1", {"unit": True}, "before it centres them"),
        ("timm/test_efficientnet", "last-3", {"layers": 2}, "several layers beside each other"),
        ("tiny", "full", {}, "HiCA's own small network"),
        ("hf:clip", "lora", {}, "transformers' own code"),
    ],
)
def test_what_open_clip_cannot_hold_is_said(trained, tmp_path, image, train, more, why):
    _, exported = trained(image, train, **more)
    with pytest.raises(NotPossibleError, match=why):
        open_clip_form.write(tmp_path, exported)


def test_a_centre_that_is_no_mean_of_features_is_said(trained, tmp_path):
    _, exported = trained("export-narrow", "last-1")
    exported.classifier.centre.copy_(torch.randn(48))
    with pytest.raises(NotPossibleError, match="cannot carry the centre"):
        open_clip_form.write(tmp_path, exported)


def test_a_padding_that_open_clip_cannot_be_told_is_said(trained, tmp_path):
    _, exported = trained("timm/test_efficientnet", "last-1")
    exported.classifier.tower.pad_type = "same"
    with pytest.raises(NotPossibleError, match=r'model\.pad_type = "same"'):
        open_clip_form.write(tmp_path, exported)


def test_a_tower_that_open_clip_builds_otherwise_is_said(trained, tmp_path):
    _, exported = trained("timm/test_vit", "full")
    trunk = exported.classifier.tower.trunk
    trunk.pos_embed = torch.nn.Parameter(torch.zeros(1, 17, trunk.embed_dim))
    with pytest.raises(NotPossibleError, match=r"other weights \(visual\.trunk\.pos_embed\)"):
        open_clip_form.write(tmp_path, exported)


def test_texts_of_the_study_are_words_and_others_are_nothing(trained, tmp_path):
    _, exported = trained("timm/test_efficientnet", "last-1")
    open_clip_form.write(tmp_path, exported)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    model.eval()
    texts = [*exported.classes, *exported.findings]
    with torch.no_grad():
        rows = model.encode_text(tokenizer(texts), normalize=True)
        other = model.encode_text(tokenizer(["a triangle"]))
    classifier = exported.classifier
    torch.testing.assert_close(rows, torch.cat([classifier.classes, classifier.findings]))
    assert not other.any()


@pytest.mark.parametrize("resize", ["squash", "shortest", "longest"])
def test_open_clips_transform_is_hicas(trained, tmp_path, resize):
    _, exported = trained("timm/test_efficientnet", "last-1")
    look = replace(exported.classifier.preprocess, resize=resize)
    exported.classifier.tower.preprocess = look
    open_clip_form.write(tmp_path, exported)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    for size in ((90, 50), (64, 64), (31, 200)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        expected = look.normalise(look.pixels(image)[None])[0]
        torch.testing.assert_close(transform(image), expected, atol=1e-6, rtol=0)


def test_texts_that_become_one_are_said(trained, tmp_path):
    _, exported = trained("timm/test_efficientnet", "last-1")
    renamed = exported.study.classes[0].model_copy(update={"name": "square  "})
    study = exported.study.model_copy(update={"classes": [renamed, exported.study.classes[1]]})
    object.__setattr__(exported, "study", study)
    with pytest.raises(NotPossibleError, match="the same after open_clip's cleaning"):
        open_clip_form.write(tmp_path, exported)
