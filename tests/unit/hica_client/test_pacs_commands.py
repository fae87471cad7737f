"""`hica-client pull` from the command line, against a fake node and a fake service."""

import json
import logging
import os
import stat
import threading
import warnings

import httpx
import pytest
from tests.unit.hica_client.pacs.conftest import FakeWeb
from tests.unit.hica_client.pacs.fake_node import FakeNode
from tests.unit.hica_client.pacs.files import ROOT

import hica_client.pacs.command as command
from hica_client.cli import main
from hica_client.pacs.dicomweb import DicomWeb

ADDRESS = "http://127.0.0.1:8042/dicom-web"
SITE = '[site]\nname = "north"\n[data]\nmanifest = "m.csv"\n'


@pytest.fixture
def site(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(SITE)
    return file


@pytest.fixture
def web(monkeypatch):
    fake = FakeWeb()

    def client(where, settings):
        transport = httpx.MockTransport(fake.answer)
        return DicomWeb(where, settings, transport=transport, pause=lambda _: None)

    monkeypatch.setattr(command, "DicomWeb", client)
    return fake


@pytest.fixture
def pull(site, tmp_path, capfd):
    """Runs the command; its exit code and what it printed."""

    def pull(*arguments, out=tmp_path / "out", source=ADDRESS):
        more = ["--out", out] if out else []
        more += ["--from", source] if source else []
        with pytest.raises(SystemExit) as end:
            main(list(map(str, ["pull", site, *more, *arguments])))
        out_, err = capfd.readouterr()
        for word in (ROOT, "PAT0", "ACC0", "Doe"):
            assert word not in out_ + err
        return end.value.code, out_, err

    return pull


def test_a_pull_reports_counts_and_is_noted_at_the_site(pull, web, site, tmp_path):
    code, out, err = pull("--modality", "us", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["instances"], told["whole"], told["fetched"], told["missing"]) == (6, 6, 6, 0)
    assert told["by_modality"] == {"US": {"series": 3, "instances": 6}}
    record = tmp_path / "state" / "pulls.jsonl"
    begun, ended = map(json.loads, record.read_text().splitlines())
    assert (begun["event"], begun["from"], ended["event"]) == ("begun", ADDRESS, "done")
    assert ended["fetched"] == 6
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    code, out, _ = pull("--modality", "US")
    assert code == 0
    assert "in the folder: 6 (6 from before, 0 fetched" in out


def test_a_dry_run_needs_no_folder_and_leaves_no_trace(pull, web, tmp_path):
    code, out, _ = pull("--modality", "US", "--dry-run", out=None)
    assert code == 0
    assert "the PACS has 3 studies, 3 series, 6 instances: US 6 in 3 series" in out
    assert "nothing was moved" in out
    assert not (tmp_path / "state").exists()


def test_a_limit_is_of_studies(pull, web):
    code, out, _ = pull("--modality", "US", "--limit", "2", "--json")
    assert (code, json.loads(out)["studies"]) == (0, 2)


def test_missing_images_end_with_code_3_after_the_report(pull, web):
    web.faults[r".*\.1\.1\.1"] = lambda _: httpx.Response(404)
    code, out, err = pull("--modality", "US", "--json")
    assert (code, json.loads(out)["missing"]) == (3, 1)
    assert "error: 1 of 6 instances are missing: 1 were there when the PACS was searched" in err


def test_a_study_list_names_lines_that_found_nothing(pull, web, tmp_path):
    cases = tmp_path / "cases.csv"
    cases.write_text("accession_number\nACC0001\nACC9999\n")
    code, out, _ = pull("--cases", cases)
    assert code == 0
    assert "1 studies, 1 series, 2 instances" in out
    assert "(lines 3)" in out


def test_ctrl_c_leaves_whole_files_and_says_so(pull, web, tmp_path):
    web.faults[rf".*{ROOT}\.2\.1\.2"] = [KeyboardInterrupt()]
    code, _, err = pull("--modality", "US")
    assert code == 130
    assert "3 instances are whole in" in err and "the same command goes on" in err
    assert len(list((tmp_path / "out").glob("??/*.dcm"))) == 3
    assert '"interrupted"' in (tmp_path / "state" / "pulls.jsonl").read_text()
    assert pull("--modality", "US", "--json")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no studies are chosen"),
        (["--from-date", "2024-02-01", "--to-date", "2024-01-01"], "after --to-date"),
        (["--also", "SR", "--from-date", "2024-01-01"], "--also: needs --modality"),
        (["--as", "HICA@10.0.0.5", "--modality", "US"], "--as: write it as MYAET"),
    ],
)
def test_misuse_is_said(pull, web, arguments, words):
    code, _, err = pull(*arguments)
    assert code == 2
    assert words in err


def test_a_folder_and_an_address_are_needed(pull, web):
    assert "--out: name the folder" in pull("--modality", "US", out=None)[2]
    assert (
        "no PACS is named: give --from, or set address" in pull("--modality", "US", source=None)[2]
    )


def test_settings_stand_in_the_site_file(pull, web, site):
    site.write_text(f'{SITE}[pacs]\naddress = "{ADDRESS}"\n')
    assert pull("--modality", "US", source=None)[0] == 0
    site.write_text(f'{SITE}[pacs]\naddress = "nonsense"\n')
    assert "site.toml: pacs.address: not the address" in pull("--modality", "US", source=None)[2]
    site.write_text(f'{SITE}[pacs]\ncertificate = "c.pem"\n')
    assert "certificate and key belong together" in pull("--modality", "US")[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('user = "reader"', "[pacs] user has no password"),
        ('password_file = "absent"', "[pacs] password_file: "),
        ('authority = "absent.pem"', "no certificates in PEM can be read there"),
        ('certificate = "a"\nkey = "b"', "not a certificate and its key in PEM"),
    ],
)
def test_settings_that_cannot_be_used_are_named(pull, web, site, settings, words):
    site.write_text(f"{SITE}[pacs]\n{settings}\n")
    code, _, err = pull("--modality", "US", source="https://127.0.0.1:8042/dicom-web")
    assert code == 2
    assert words in err


def test_an_open_way_over_a_network_is_noted(pull, web):
    code, out, _ = pull("--modality", "US", "--dry-run", source="http://pacs.hospital/rs")
    assert code == 0
    assert "note: the connection is not encrypted" in out


def test_from_a_dicom_node(pull):
    with FakeNode().running() as port:
        source = f"dicom://PACS@127.0.0.1:{port}"
        code, out, err = pull("--modality", "US", "--as", "HICA", "--json", source=source)
    assert code == 0, err
    assert json.loads(out)["whole"] == 4


def test_no_library_says_what_it_sees(pull, web, recwarn):
    def speak(request):
        warnings.warn("Invalid value for VR UI: PAT0001", stacklevel=1)
        thread = threading.Thread(target=lambda: {}["PAT0001"])
        thread.start()
        thread.join()

    web.faults["/studies"] = speak
    before = threading.excepthook
    assert pull("--modality", "US", "--dry-run")[0] == 0
    for name in ("pynetdicom.assoc", "pydicom", "httpx"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
    assert not [each for each in recwarn if "PAT0001" in str(each.message)]
    assert threading.excepthook is before


def test_a_disk_that_is_nearly_full_ends_the_pull(pull, web, monkeypatch):
    monkeypatch.setattr("hica_client.pacs.store.LEAST_FREE", 1 << 60)
    code, _, err = pull("--modality", "US")
    assert code == 7
    assert "are free on this disk; free space, and the same command goes on" in err


def test_the_umask_of_others_is_not_relied_on(pull, web, tmp_path):
    before = os.umask(0)
    try:
        assert pull("--modality", "US")[0] == 0
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out").glob("??/*.dcm")}
    assert modes == {0o600}
