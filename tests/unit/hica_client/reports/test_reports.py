"""`hica-client reports`: counts, samples, a page; no word of a report in errors or logs."""

import csv
import json

import pytest
from tests.unit.hica.reports.words import Words

from hica_client.cli import main
from hica_client.reports import reading

STUDY = """
[study]
name = "films"
[[classes]]
name = "a"
prompts = ["a"]
[[classes]]
name = "b"
prompts = ["b"]
[reports.findings]
effusion = ["effusion"]
nodule = ["nodule"]
"""
SECRET = "Jane Roe"


@pytest.fixture
def hospital(tmp_path, monkeypatch):
    def make(reports, study=STUDY):
        (tmp_path / "study.toml").write_text(study)
        (tmp_path / "site.toml").write_text(
            '[site]\nname = "alpha"\n[data]\nmanifest = "manifest.csv"\n'
        )
        with (tmp_path / "manifest.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "report"])
            for number, report in enumerate(reports):
                (tmp_path / f"{number}.png").write_bytes(b"")
                rows.writerow([f"{number}.png", report])
        return [
            "reports", str(tmp_path / "site.toml"), "--study", str(tmp_path / "study.toml")
        ]  # fmt: skip

    monkeypatch.setattr(reading, "pinned_text_tower", lambda *_: Words())
    return make


def run(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code or 0, *capsys.readouterr()


def test_counts_alone_are_in_the_json(hospital, capsys, caplog):
    texts = [
        f"Small effusion of {SECRET}.",
        "No nodule.",
        "",
        f"Effusion of {SECRET}. " + "The lungs are seen from the front. " * 1_500,
    ]
    code, out, err = run([*hospital(texts), "--json"], capsys)
    found = json.loads(out)
    assert code == 0
    assert (found["images"], found["reports"], found["cut"]) == (4, 3, 1)
    assert found["findings"]["effusion"]["mentioned"] == 2
    assert found["findings"]["nodule"]["denied"] == 1
    assert SECRET not in out + err + caplog.text


def test_the_page_shows_what_counted_and_is_for_its_owner_alone(hospital, capsys, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = run(
        [*hospital([f"Small effusion of {SECRET} <b>."]), "--out", str(page)], capsys
    )
    assert code == 0 and SECRET not in out + err
    assert '<mark class="affirmed" title="effusion">' in page.read_text()
    assert "<b>" not in page.read_text()
    assert page.stat().st_mode & 0o077 == 0


def test_samples_are_shown_on_the_terminal(hospital, capsys):
    out = run(hospital(["Small effusion."]), capsys)[1]
    assert "Small effusion." in out and "effusion: affirmed" in out


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        (["", ""], "no image has a report"),
        ([f"{SECRET}: kein Erguss, das Herz ist nicht verbreitert."] * 2, "not in English"),
    ],
)
def test_reports_that_cannot_be_used(hospital, capsys, reports, words):
    code, _, err = run(hospital(reports), capsys)
    assert code == 3 and words in " ".join(err.split()) and SECRET not in err


def test_a_study_without_findings(hospital, capsys):
    code, _, err = run(hospital(["Small effusion."], STUDY.partition("[reports")[0]), capsys)
    assert code == 2 and "names no finding" in " ".join(err.split())


def test_a_tower_that_knows_no_language(hospital, capsys, monkeypatch):
    arguments = hospital(["Small effusion."])
    monkeypatch.undo()
    code, _, err = run(arguments, capsys)
    assert code == 2 and "model.text_sha256" in " ".join(err.split())
