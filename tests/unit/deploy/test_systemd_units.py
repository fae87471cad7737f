"""The units under deploy/ are understood by systemd and confine what they start."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hica.errors import HicaError

DEPLOY = Path(__file__).parents[3] / "deploy"
UNITS = ["hica-server.service", "hica-client.service"]
ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def verify(folder: Path, name: str, text: str) -> str:
    """What systemd says about a unit whose program exists on this machine."""
    unit = folder / name
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text))
    done = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    return "\n".join(line for line in said.splitlines() if name in line)


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong(name, tmp_path):
    assert verify(tmp_path, name, (DEPLOY / name).read_text()) == ""


@needs_systemd
def test_systemd_would_find_a_misspelt_setting(tmp_path):
    text = (DEPLOY / UNITS[0]).read_text().replace("KillMode=", "KilMode=")
    assert "KilMode" in verify(tmp_path, UNITS[0], text)


@pytest.mark.parametrize("name", UNITS)
def test_a_fault_is_restarted_and_what_a_person_must_mend_is_not(name):
    settings = (DEPLOY / name).read_text().splitlines()
    assert "Restart=on-failure" in settings
    codes = sorted({kind.exit_code for kind in HicaError.__subclasses__()})
    assert f"RestartPreventExitStatus={' '.join(map(str, codes))}" in settings
