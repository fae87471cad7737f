import onnx
import pytest
import torch

from hica.export import onnx_form
from hica.export.classifier import NotPossibleError, sample
from hica.export.copied import EMBEDDING, LOGITS

KINDS = [
    ("tiny", "full", {}),
    *(
        pytest.param(*each, marks=pytest.mark.matrix)
        for each in [
            ("timm/test_efficientnet", "adapter", {"unit": True}),
            ("timm/test_efficientnet", "last-3", {"layers": 2}),
            ("timm/test_vit", "lora", {}),
            ("export-vit", "lora", {}),
            ("hf:clip", "lora", {}),
        ]
    ),
]


@pytest.mark.parametrize(("image", "train", "more"), KINDS)
def test_logits_are_hicas_for_any_number_of_images(trained, tmp_path, image, train, more):
    _, exported = trained(image, train, **more)
    onnx_form.write(tmp_path, exported)
    for count in (1, 5):
        colours = sample(exported.classifier, count)
        with torch.no_grad():
            expected = exported.classifier(colours)[0]
        found = onnx_form.logits(tmp_path, exported, colours)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    graph = onnx.load(tmp_path / "model.onnx")
    assert [each.name for each in graph.graph.output] == [LOGITS, EMBEDDING]
    data = (tmp_path / "model.onnx").read_bytes()
    assert b"site-packages" not in data and b".py" not in data  # nothing of this machine


def test_a_tower_that_is_no_graph_is_said(trained, tmp_path, monkeypatch):
    _, exported = trained("tiny", "full")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported\nand more")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(NotPossibleError, match=r"make a graph of this tower \(unsupported\)"):
        onnx_form.write(tmp_path, exported)
