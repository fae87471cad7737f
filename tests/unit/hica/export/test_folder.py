from pathlib import Path

import numpy as np
import pytest

from hica.errors import ConfigurationError, StorageError
from hica.export import folder as module
from hica.export.folder import check_libraries, export_folder
from hica.export.manifest import verify
from hica.steps.state import Bank, State

LEARNT = State(
    shared={"tower.w": np.ones(2, np.float32)},
    bank=Bank(np.ones((2, 4), np.float32), np.ones((4, 4), np.float32)),
    centre=np.zeros((2, 4), np.float32),
)


@pytest.fixture
def exported(trained, monkeypatch):
    """A model of which two forms are written: a graph takes seconds, and has tests of its own."""
    few = {name: form for name, form in module.FORMS.items() if name != "onnx"}
    monkeypatch.setattr(module, "FORMS", few)
    return trained("timm/test_efficientnet", "last-1")[1]


def test_a_folder_has_forms_texts_card_and_list(exported, tmp_path):
    audit = tmp_path / "audit.md"
    audit.write_text("nothing leaked")
    to = tmp_path / "deep" / "model"
    card = export_folder(to, exported, LEARNT, None, {"audit.md": audit}, preprocess={})
    assert {path.name for path in to.iterdir()} == {
        "open_clip", "hugging_face", "hica", "text", "audit.md",
        "model_card.md", "model_card.json", "manifest.json",
    }  # fmt: skip
    assert card["not_here"] == {"monai_bundle": "it is made of the ONNX graph"}
    assert verify(to, unsigned=True).manifest.study == "toy"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]
    for form in ("open_clip", "hugging_face"):
        assert "```python" in (to / form / "README.md").read_text()


def test_a_form_that_gives_other_logits_is_not_there(exported, tmp_path):
    before = module.FORMS["open_clip"]

    def off(*arguments):
        return before.logits(*arguments) + 1e-3

    module.FORMS["open_clip"] = module._Form(before.write, off, before.close, before.views)
    card = export_folder(tmp_path / "model", exported, LEARNT, None, {})
    assert "its logits were off by 0.001, and 1e-05 is allowed" in card["not_here"]["open_clip"]
    assert not (tmp_path / "model" / "open_clip").exists()


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(exported, tmp_path):
    to = tmp_path / "model"
    to.mkdir()
    export_folder(to, exported, LEARNT, None, {})
    before = (to / "manifest.json").read_bytes()
    with pytest.raises(ConfigurationError, match="is not empty and is left alone"):
        export_folder(to, exported, LEARNT, None, {})
    assert (to / "manifest.json").read_bytes() == before
    with pytest.raises(ConfigurationError, match="is a file and is left alone"):
        export_folder(to / "manifest.json", exported, LEARNT, None, {})


def test_the_folder_one_is_in_can_be_named(exported, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    monkeypatch.setattr(module, "FORMS", {})
    export_folder(Path(), exported, LEARNT, None, {})
    assert verify(tmp_path / "model", unsigned=True).manifest.files


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_is_cut_short_leaves_nothing(exported, tmp_path, monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "write_manifest", fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StorageError
    with pytest.raises(expected):
        export_folder(tmp_path / "model", exported, LEARNT, None, {})
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(module, "LIBRARIES", ("onnx", "no_such_library"))
    with pytest.raises(ConfigurationError, match=r"no_such_library.*pip install.*'\.\[export\]'"):
        check_libraries()
