import subprocess

import pytest

from hica.errors import WeightsError
from hica.towers.folders import check_pin, folder_sha256, has_words, model_folder, weights_in
from hica.towers.weights import Wanted

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def wanted(weights, sha256=None) -> Wanted:
    return Wanted(None, None, sha256, "", None, None, None, 0, weights)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "weights" / "model"
    folder.mkdir(parents=True)
    for name in ("config.json", "vocab.txt", "model.safetensors", "README.md", ".hidden.json"):
        (folder / name).write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.json").write_text("{}")
    return folder


def test_the_hash_is_what_sha256sum_says_of_what_is_used(folder) -> None:
    names = "config.json model.safetensors vocab.txt"
    command = f"sha256sum {names} | sha256sum"
    said = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert folder_sha256(folder, folder / "model.safetensors") == said.stdout.split()[0]


def test_the_hash_is_of_content_not_of_place_or_what_else_is_there(folder, tmp_path) -> None:
    before = folder_sha256(folder, folder / "model.safetensors")
    (folder / "README.md").write_text("other")
    (folder / ".hidden.json").unlink()
    (folder / "pytorch_model.bin").write_text("the same weights in another format")
    moved = folder.rename(tmp_path / "elsewhere")
    assert folder_sha256(moved, moved / "model.safetensors") == before
    (moved / "vocab.txt").write_text("other")
    assert folder_sha256(moved, moved / "model.safetensors") != before


def test_what_is_pinned_passes_and_the_rest_says_why(folder) -> None:
    weights = weights_in(folder, ["none.bin", "model.safetensors"], "model.image")
    pin = folder_sha256(folder, weights)
    check_pin("model", folder, weights, wanted(folder.parent, pin), "model.image")
    check_pin("model", folder, weights, wanted(folder.parent), "model.text")
    check_pin(f"a/b@{COMMIT}", folder, weights, wanted(folder.parent), "model.image")
    with pytest.raises(WeightsError, match=f'not pinned.*sha256 = "{pin}"'):
        check_pin("model", folder, weights, wanted(folder.parent), "model.image")
    with pytest.raises(WeightsError, match="other weights than the study's"):
        check_pin("model", folder, weights, wanted(folder.parent, "0" * 64), "model.image")


def test_folders_lie_below_the_folder_of_weights(folder, tmp_path) -> None:
    found = model_folder("model", (), wanted(folder.parent), "model.image")
    assert found == folder.resolve()
    for name in ("../weights/../..", str(tmp_path)):
        with pytest.raises(WeightsError, match="leads out of the folder"):
            model_folder(name, (), wanted(folder.parent), "model.image")
    with pytest.raises(WeightsError, match="no such folder; put the model's folder there"):
        model_folder("nowhere", (), wanted(folder.parent), "model.image")
    with pytest.raises(WeightsError, match=r"no weights in it; put one of a\.bin, b\.bin there"):
        weights_in(folder, ["a.bin", "b.bin"], "model.image")


def test_a_tokenizer_has_words(folder) -> None:
    assert has_words(folder)
    (folder / "vocab.txt").unlink()
    assert not has_words(folder)
