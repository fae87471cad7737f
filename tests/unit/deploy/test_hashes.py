import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "hashes.py"
A, B = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def hashes():
    spec = importlib.util.spec_from_file_location("hashes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def item(name: str, archive: dict) -> dict:
    return {
        "metadata": {"name": name, "version": "1.0"},
        "download_info": {"url": "anywhere", "archive_info": archive},
    }


def test_lines_are_sorted_and_tell_no_index(hashes):
    found = {"install": [item("b", {"hashes": {"sha256": B}}), item("A", {"hash": f"sha256={A}"})]}
    header, *lines = hashes.requirements(found)
    assert lines == [f"A==1.0 --hash=sha256:{A}\n", f"b==1.0 --hash=sha256:{B}\n"]
    assert header.startswith("# ") and "anywhere" not in "".join([header, *lines])


@pytest.mark.parametrize("archive", [{}, {"hashes": {"md5": "1"}}, {"hash": "sha256=torn"}])
def test_a_file_without_hash_is_named(hashes, archive):
    with pytest.raises(ValueError, match=r"^b: pip reports no SHA-256"):
        hashes.requirements({"install": [item("b", archive)]})


def test_a_folder_without_project_is_named(tmp_path):
    command = [sys.executable, SCRIPT, tmp_path / "out.txt", "--project", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pyproject.toml" in done.stderr
    assert not (tmp_path / "out.txt").exists()
