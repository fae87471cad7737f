"""The commands that the hospital's guide shows for an import."""

import re
import shlex
from pathlib import Path

import pytest
from tests.unit.hica_client.intake.exports import blob, write_dicom

from hica_client.cli import main
from hica_client.intake import reasons

GUIDE = Path(__file__).parents[4] / "client" / "README.md"
SECTION = GUIDE.read_text(encoding="utf-8").split("## Import an export\n")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^hica-client (.+)$", SECTION, re.MULTILINE)


def test_the_commands_of_the_guide(hospital, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        write_dicom(
            tmp_path / "exported" / f"IM{number}", blob(number), PatientID=f"P{number // 2}"
        )
    (tmp_path / "exported" / "notes.txt").write_text("nothing")
    lines = [f"P{patient},{('benign', 'malignant')[patient % 2]}" for patient in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["PatientID,label", *lines]))
    assert [command.split()[0] for command in COMMANDS] == ["import", "import", "check"]
    said = []
    for command in COMMANDS:
        with pytest.raises(SystemExit) as end:
            main(shlex.split(command, comments=True))
        assert not end.value.code
        said.append(capsys.readouterr())
    assert f"skipped notes.txt: {reasons.OTHER}" in said[1].err
    assert said[2].out.rstrip().endswith("ready")
    labels = [row["label"] for row in hospital.rows]
    assert (labels.count("benign"), labels.count("malignant")) == (4, 4)
    assert len({row["patient_id"] for row in hospital.rows}) == 4
