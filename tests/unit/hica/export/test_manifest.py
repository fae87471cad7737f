"""What was changed, is missing or was added in an exported folder is named, and who signed it."""

import json
import shutil
from pathlib import Path

import pytest

from hica.deployment.keys import fingerprint, generate, read_private
from hica.errors import ConfigurationError, DataError
from hica.export.manifest import verify, write_manifest

SAID = {
    "study": "toy",
    "study_sha256": "0" * 64,
    "exported_by": "coordinator",
    "made": "2026-01-01T00:00:00+00:00",
    "hica": "0.1.0",
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict:
    """Two private keys, by name."""
    root = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        generate(root / name)
    return {name: read_private(root / name) for name in ("own", "other")}


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "model"
    for name in ("a.txt", "onnx/model.onnx", "z/last"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    return made


@pytest.fixture
def signed(folder, keys) -> Path:
    write_manifest(folder, keys["own"], **SAID)
    return folder


def test_a_folder_that_is_whole(signed, tmp_path):
    found = verify(signed)
    assert found.signer is not None and found.signer.startswith("SHA256:")
    assert found.to_dict() == {"files": 3, "signer": found.signer, **SAID}
    assert verify(signed, found.signer).manifest == found.manifest
    elsewhere = shutil.copytree(signed, tmp_path / "elsewhere")
    assert verify(elsewhere).signer == found.signer


def test_the_signer_is_the_key(tmp_path, folder):
    public = generate(tmp_path / "site")
    write_manifest(folder, read_private(tmp_path / "site"), **SAID)
    assert verify(folder).signer == fingerprint(public)


def changed(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").write_text("onnx/model.onnX")  # as long as before


def missing(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").unlink()


def added(folder: Path) -> None:
    (folder / "onnx" / "more").write_text("")


def linked(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").replace(folder.parent / "kept")
    (folder / "onnx" / "model.onnx").symlink_to(folder.parent / "kept")


def linked_folder(folder: Path) -> None:
    (folder / "onnx").rename(folder.parent / "kept")
    (folder / "onnx").symlink_to(folder.parent / "kept")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed, "onnx/model.onnx: was changed"),
        (missing, "onnx/model.onnx: is missing"),
        (added, "onnx/more: was added"),
        (linked, "onnx/model.onnx: is a link, or no file"),
        (linked_folder, "onnx: was added"),
    ],
)
def test_the_first_file_that_is_not_as_exported_is_named(signed, change, words):
    change(signed)
    (signed / "z" / "last").write_text("changed, too")
    with pytest.raises(DataError, match=f"{signed}/{words}; get the folder anew"):
        verify(signed)


def rewritten(folder: Path) -> None:
    """A file and its hash changed together."""
    (folder / "a.txt").write_text("other")
    shutil.copytree(folder, folder.parent / "again")
    for name in ("manifest.json", "manifest.sig"):
        (folder.parent / "again" / name).unlink()
    write_manifest(folder.parent / "again", None, **SAID)
    table = json.loads((folder / "manifest.json").read_text())
    table["files"] = json.loads((folder.parent / "again" / "manifest.json").read_text())["files"]
    (folder / "manifest.json").write_text(json.dumps(table))


def no_signature(folder: Path) -> None:
    (folder / "manifest.sig").unlink()


def garbage(folder: Path) -> None:
    (folder / "manifest.sig").write_text("no signature at all")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rewritten, "manifest.sig: is not the signature of manifest.json"),
        (garbage, "manifest.sig: is not the signature of manifest.json"),
        (no_signature, "manifest.sig: is missing"),
    ],
)
def test_a_list_that_is_not_the_signed_one_is_told(signed, change, words):
    change(signed)
    with pytest.raises(DataError, match=words):
        verify(signed, unsigned=True)


def test_another_signer_than_the_one_asked_for_is_named(folder, keys):
    write_manifest(folder, keys["own"], **SAID)
    own = verify(folder).signer
    for name in ("manifest.json", "manifest.sig"):
        (folder / name).unlink()
    write_manifest(folder, keys["other"], **SAID)
    with pytest.raises(DataError, match=r"is signed by SHA256:.*, and not by") as error:
        verify(folder, own)
    assert own in str(error.value)


def test_a_folder_that_nobody_signed_does_not_pass_unless_asked(folder):
    write_manifest(folder, None, **SAID)
    with pytest.raises(DataError, match=r"nobody has signed it.*add --unsigned"):
        verify(folder)
    assert verify(folder, unsigned=True).signer is None
    with pytest.raises(DataError, match="signed by nobody, and not by SHA256:x"):
        verify(folder, "SHA256:x", unsigned=True)
    (folder / "manifest.sig").write_text("c2ln")
    with pytest.raises(DataError, match=r"manifest\.sig: was added"):
        verify(folder, unsigned=True)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"files": 1}', "[" * 100_000, "\xff"])
def test_a_list_that_is_none_is_told(signed, text):
    (signed / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"manifest\.json: is not the list that was exported"):
        verify(signed)


def test_a_key_that_is_none_is_told(signed):
    table = json.loads((signed / "manifest.json").read_text())
    (signed / "manifest.json").write_text(json.dumps(table | {"key": "ssh-rsa AAAA"}))
    with pytest.raises(DataError, match=r"manifest\.json: key: no public key"):
        verify(signed)


def test_what_is_no_exported_folder_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match="name a folder that `hica-server export`"):
        verify(tmp_path)
    with pytest.raises(ConfigurationError, match=r"manifest\.json: cannot be read"):
        verify(tmp_path / "nowhere")
