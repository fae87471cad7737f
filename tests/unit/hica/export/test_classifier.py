import pytest
import torch
from torch.nn import functional

from hica.export.classifier import sample

KINDS = [
    ("tiny", "full", {}),
    ("tiny", "adapter", {"unit": True}),
    ("timm/test_efficientnet", "lora", {}),
    ("timm/test_efficientnet", "last-3", {"layers": 2}),
    ("export-vit", "lora", {}),
]


@pytest.mark.parametrize(("image", "train", "more"), KINDS)
def test_logits_are_those_of_the_model_that_was_trained(trained, said_by_hica, image, train, more):
    model, exported = trained(image, train, **more)
    classifier = exported.classifier
    colours = sample(classifier)
    expected = said_by_hica(model, colours, classifier.temperature)
    with torch.no_grad():
        found = classifier.logits(classifier.embedding(colours))
    assert expected.std() > 0.01  # else anything would be close
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not [name for name in classifier.state_dict() if "lora_" in name]
    again = said_by_hica(model, colours, classifier.temperature)
    torch.testing.assert_close(again, expected, atol=0, rtol=0)  # the model itself stays


def test_image_and_mirror_image_are_averaged_on_the_sphere(trained):
    _, exported = trained("tiny", "full")
    classifier = exported.classifier
    colours = sample(classifier)
    with torch.no_grad():
        both = [classifier.embedding(view) for view in (colours, colours.flip(-1))]
        found, embedding = classifier(colours)
    expected = functional.normalize(sum(both), dim=-1)
    torch.testing.assert_close(embedding, expected)
    torch.testing.assert_close(found, classifier.logits(expected))
    assert (found - classifier.logits(both[0])).abs().max() > 1e-3


def test_without_the_mirror_image_there_is_one_view(trained):
    classifier = trained("tiny", "full", "alignment.flip_at_test=false")[1].classifier
    colours = sample(classifier)
    with torch.no_grad():
        torch.testing.assert_close(classifier(colours)[1], classifier.embedding(colours))
