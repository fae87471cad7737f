"""`hica-client pull` against a real Orthanc: both protocols, killed in the middle, gone on."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from tests.deployment.orthanc_pacs import PASSWORD, USER, needs_orthanc, running, study

from hica_client.pacs.connection import PASSWORD as VARIABLE

STUDIES = 1000
KILLS = (STUDIES // 5, STUDIES // 2)
"""Files in the folder at which the pull is killed."""

pytestmark = [pytest.mark.deployment, pytest.mark.matrix, needs_orthanc]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with running(tmp_path_factory.mktemp("orthanc")) as orthanc:
        orthanc.add(file for number in range(1, STUDIES + 1) for file in study(number))
        yield orthanc


@pytest.fixture
def site(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(
        f'[site]\nname = "north"\n[data]\nmanifest = "m.csv"\n[pacs]\nuser = "{USER}"\n'
    )
    return file


def ways(pacs):
    return {
        "dicomweb": ["--from", pacs.web],
        "c-get": ["--from", pacs.node, "--as", "HICA"],
        "c-move": ["--from", pacs.node, "--as", f"HICA:{pacs.store}"],
    }


def pulling(site, out, *arguments):
    """A process that pulls everything."""
    command = [sys.executable, "-c", "from hica_client.cli import main; main()", "pull", site]
    return subprocess.Popen(
        [*map(str, command), "--out", str(out), "--from-date", "2024-01-01", "--json", *arguments],
        env={**os.environ, VARIABLE: PASSWORD, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """What a pull reports that ends by itself."""
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert_no_identifier(out + said)
    return json.loads(out)


def assert_no_identifier(text):
    for word in ("PAT0", "ACC0", "Doe", "1.2.826"):
        assert word not in text


def files(folder: Path) -> dict[Path, int]:
    """Received files, each with the time it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("??/*.dcm")}


def kill_at(process, folder, number):
    """SIGKILL once so many files are there; returns them."""
    while len(files(folder)) < number:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return files(folder)


@pytest.mark.parametrize("way", ["dicomweb", "c-move"])
def test_a_thousand_studies_killed_twice_are_all_there_and_none_came_twice(
    pacs, site, tmp_path, way
):
    out = tmp_path / "received"
    arguments = ways(pacs)[way]
    before = {}
    for number in KILLS:
        there = kill_at(pulling(site, out, *arguments), out, number)
        assert before.items() <= there.items(), "a file that was whole was written again"
        before = there
    told = ended(pulling(site, out, *arguments))
    after = files(out)
    assert before.items() <= after.items()
    assert told["held"] == len(before)
    assert told["fetched"] == STUDIES - len(before)
    assert told["whole"] == told["instances"] == len(after) == pacs.instances() == STUDIES
    assert told["missing"] == 0
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in after}
    assert uids == {f"1.2.826.0.1.3680043.8.498.{n}.0.0" for n in range(1, STUDIES + 1)}
    for path in out.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert_no_identifier(str(path.relative_to(out)))
    assert not (out / ".pull" / "parts").exists()
    assert_no_identifier((site.parent / "state" / "pulls.jsonl").read_text())


def test_a_dry_run_counts_and_moves_nothing(pacs, site, tmp_path):
    out = tmp_path / "received"
    told = ended(pulling(site, out, "--dry-run", *ways(pacs)["c-get"]))
    assert told["by_modality"] == {"US": {"series": STUDIES, "instances": STUDIES}}
    assert not out.exists()


def test_studies_are_chosen_alike_by_both_protocols(pacs, site, tmp_path):
    cases = tmp_path / "cases.csv"
    cases.write_text("patient_id\nPAT000007\nPAT000008\nPAT999999\n")
    chosen = {}
    for way in ("dicomweb", "c-get"):
        out = tmp_path / way
        narrow = ("--study-description", "*BREAST*", "--cases", str(cases), "--modality", "US")
        told = ended(pulling(site, out, *ways(pacs)[way], *narrow))
        chosen[way] = (told["instances"], {path.name for path in files(out)})
        assert "(lines 3, 4)" in str(told["notes"])
    assert chosen["dicomweb"] == chosen["c-get"]
    assert chosen["dicomweb"][0] == 1


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (["--as", "NOBODY"], "check that it knows AE title 'NOBODY'"),
        (["--as", "LOST:11999"], "no connection came to 127.0.0.1:11999"),
    ],
)
def test_what_orthanc_refuses_has_a_remedy(pacs, site, tmp_path, way, words):
    process = pulling(site, tmp_path / "out", "--from", pacs.node, *way, "--limit", "2")
    out, said = process.communicate(timeout=120)
    assert process.returncode == 3
    assert words in said
    assert_no_identifier(out + said)
