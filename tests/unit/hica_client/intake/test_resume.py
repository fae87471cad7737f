"""An import that is killed goes on, and comes to the same as one that was not disturbed."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tests.unit.hica_client.intake.conftest import Hospital
from tests.unit.hica_client.intake.exports import (
    CT,
    TEXT_REPORT,
    blob,
    finding,
    write_dicom,
)

STEPS = ("open", "os.rename", "os.remove", "os.scandir", "sqlite3.connect")
"""What a process does with files: at one of these it is killed."""


def make_export(folder: Path, files: int) -> Path:
    """A tree of DICOM of every kind: most are ultrasounds, some series, reports, copies, damage."""
    for number in range(files):
        path = folder / f"{number % 17:02}" / f"{number % 5}" / f"IM{number:06}"
        patient = {"PatientID": f"P{number // 4}", "StudyInstanceUID": f"1.2.{number // 3}"}
        kind = number % 10
        if kind == 1:
            write_dicom(
                path,
                None,
                SOPClassUID=TEXT_REPORT,
                Modality="SR",
                **patient,
                ContentSequence=[finding(f"Mass number {number}")],
                SOPInstanceUID=f"1.3.{number}",
            )
        elif kind in (2, 3):
            tags = {
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "ImagePositionPatient": [0, 0, number],
            }
            write_dicom(
                path,
                blob(number),
                SOPClassUID=CT,
                Modality="CT",
                **patient,
                **tags,
                SeriesInstanceUID=f"1.4.{number // 20}",
                SOPInstanceUID=f"1.3.{number}",
            )
        elif kind == 4:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no picture")
        else:
            write_dicom(
                path,
                blob(number if kind != 5 else number - 5),
                **patient,
                SOPInstanceUID=f"1.3.{number}",
            )
    Image.fromarray(blob(1)).save(folder / "a.png")
    return folder


def in_a_process(do: Callable[[], object], until: int | None = None) -> tuple[int, int]:
    """Do something in a child, killed at its step number `until`; its end and number of steps."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        steps = 0

        def step(event: str, _: object) -> None:
            nonlocal steps
            if event in STEPS:
                steps += 1
                if steps == until:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(step)
            do()
            os.write(write, str(steps).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(said or 0)


def test_killed_and_begun_again_it_is_the_same_import(make_hospital, tmp_path):
    source = make_export(tmp_path / "x", 300)
    labels = tmp_path / "labels.csv"
    labels.write_text("PatientID,label\n" + "".join(f"P{n},benign\n" for n in range(0, 70, 2)))
    whole, killed = make_hospital("whole"), make_hospital("killed")
    code, steps = in_a_process(lambda: whole.take(source, labels=labels))
    assert code == 0 and steps > 900
    draws = random.Random(19)
    for moment in (1, 5, *(draws.randint(100, steps // 2) for _ in range(4)), 30, 8):
        code, _ = in_a_process(lambda: killed.take(source, labels=labels), moment)
        assert code == -signal.SIGKILL
    for before_the_end in (4, 2, 1):
        shutil.copytree(killed.folder, tmp_path / f"{before_the_end}")
        copy = Hospital(tmp_path / f"{before_the_end}")
        code, left = in_a_process(partial(copy.take, source, labels=labels))
        assert code == 0 and copy.content() == whole.content()
        code, _ = in_a_process(partial(killed.take, source, labels=labels), left - before_the_end)
        assert code == -signal.SIGKILL
    killed.take(source, labels=labels)
    assert killed.content() == whole.content()
    assert len({row["patient_id"] for row in killed.rows}) > 50


MEASURED = """
import sys
from pathlib import Path
from hica_client.intake.intake import Wishes, import_folder
from hica_client.site import load_site
site = load_site(Path(sys.argv[1]))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
import_folder(site, Path(sys.argv[2]), Wishes())
print("peak", before, peak())
"""


def peak_of(hospital, source: Path) -> tuple[int, int]:
    """Memory of a process before an import and its peak in it, in MiB."""
    command = [sys.executable, "-c", MEASURED, str(hospital.file), str(source)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    _, before, peak = ran.stdout.split()
    return int(before) // 1024, int(peak) // 1024


@pytest.mark.matrix
def test_ten_thousand_files_in_the_memory_of_one_thousand_killed_and_resumed(
    make_hospital, tmp_path
):
    small, large = make_export(tmp_path / "small", 1_000), make_export(tmp_path / "large", 10_000)
    whole, killed = make_hospital("whole"), make_hospital("killed")
    few, many = peak_of(make_hospital("few"), small), peak_of(whole, large)
    print(f"memory before and at most, in MiB: {few} for 1,000 files, {many} for 10,000")
    assert many[1] < 1.2 * few[1]
    draws = random.Random(19)
    for moment in [draws.randint(1, 30_000) for _ in range(5)]:
        code, _ = in_a_process(lambda: killed.take(large), moment)
        assert code in (0, -signal.SIGKILL)
    killed.take(large)
    assert killed.content() == whole.content()
    assert len(killed.rows) > 6_000
