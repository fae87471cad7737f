import csv
import json

import pytest
from tests.unit.hica_client.manifests import rows_of, write_rows

from hica_client.review import serving
from hica_client.site import load_site


@pytest.fixture
def site_file(enrolled_site):
    """A site with a start kit, of whose images two have no label."""
    site = load_site(enrolled_site)
    rows = rows_of(site)
    for number in (6, 7):
        rows[number] |= {"label": "", "split": ""}
    write_rows(site, rows)
    return enrolled_site


def test_suggestions_are_a_table_that_only_its_owner_reads(run_command, site_file, tmp_path):
    out = tmp_path / "next.csv"
    code, said, _ = run_command("suggest", site_file, "--count", "1", "--out", out)
    assert code == 0 and out.stat().st_mode & 0o77 == 0
    (row,) = csv.DictReader(out.open())
    assert row["image"] in ("6.png", "7.png") and row["image"] in said
    code, said, _ = run_command("suggest", site_file, "--out", out, "--json")
    found = json.loads(said)
    assert {each["image"] for each in found["suggestions"]} == {"6.png", "7.png"}
    assert found["table"] == str(out) and found["suggestions"][0]["alike"] >= 1


def test_nothing_to_suggest_is_said(run_command, enrolled_site, tmp_path):
    code, _, error = run_command("suggest", enrolled_site, "--out", tmp_path / "next.csv")
    assert code == 3 and "no image without a label to choose from" in error
    assert not (tmp_path / "next.csv").exists()


@pytest.mark.parametrize("verb", ["review", "suggest"])
def test_without_start_kit_and_study_it_says_what_is_missing(run_command, draw_site, verb):
    code, _, error = run_command(verb, draw_site("north"))
    assert code == 2 and "kit" in error and "Traceback" not in error


def test_the_address_is_printed_and_the_reviewer_is_who_is_named(
    run_command, site_file, monkeypatch
):
    desks = []

    def served(desk, port, idle, opened):
        desks.append((desk, idle.seconds))
        opened(serving.Access(port.getsockname()[1]))
        port.close()

    monkeypatch.setattr(serving, "serve", served)
    code, said, _ = run_command("review", site_file, "--reviewer", " ben \n b ", "--idle", "5")
    assert code == 0 and "http://127.0.0.1:" in said and "/enter?token=" in said
    assert "after 5 minutes" in said
    monkeypatch.setattr("hica_client.consent.user_name", lambda: "anna")
    code, said, _ = run_command("review", site_file, "--json")
    assert json.loads(said)["address"].startswith("http://127.0.0.1:")
    assert [(desk.reviewer, idle) for desk, idle in desks] == [("ben b", 300), ("anna", 1800)]


def test_a_manifest_that_cannot_be_used_is_said_before_the_page_opens(run_command, site_file):
    (site_file.parent / "manifest.csv").write_text("image,label\nnowhere.png,round\n")
    code, said, error = run_command("review", site_file)
    assert code == 3 and "nowhere.png" in error and "http" not in said
