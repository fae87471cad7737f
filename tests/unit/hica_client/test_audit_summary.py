import json

import pytest

from hica_client.audit import Event, append, verify
from hica_client.audit_summary import LAST, summarise
from hica_client.chain import FIRST
from hica_client.cli import main
from hica_client.site import load_site

STUDY = "ab" * 32


@pytest.fixture
def site_file(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('[site]\nname = "north"\n[data]\nmanifest = "manifest.csv"\n')
    return path


@pytest.fixture
def log(site_file):
    return load_site(site_file).audit_log


@pytest.fixture
def run(capsys, monkeypatch, site_file):
    """Run `hica-client audit` on the site."""

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as end:
            main(["audit", str(site_file), *arguments])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def fill(log):
    arrays = {"shared.a": [[2], "float32", "0" * 64], "shared.b": [[2], "float32", "0" * 64]}
    for round_ in range(3):
        append(log, Event("message", "sent", "", "train.align", round_, STUDY, 7, 8, 1000, arrays))
    append(log, Event("message", "failed", "DataError: [red]no", "train.align", 3, STUDY, bytes=50))
    append(log, Event("message", "refused", "\x1b[2J is not approved", "train.moments", 4, STUDY))
    append(log, Event("application", "refused", "foreign bundle"))


def test_sums_by_kind(log, run):
    fill(log)
    code, out, _ = run("--json")
    found = json.loads(out)
    assert code == 0
    assert found["kinds"] == {
        "application": {"sent": 0, "failed": 0, "refused": 1, "arrays": 0, "bytes": 0},
        "train.align": {"sent": 3, "failed": 1, "refused": 0, "arrays": 6, "bytes": 3050},
        "train.moments": {"sent": 0, "failed": 0, "refused": 1, "arrays": 0, "bytes": 0},
    }
    entries = verify(log)
    assert (found["entries"], found["bytes"], found["studies"]) == (6, 3050, [STUDY])
    assert found["hash"] == entries[-1]["hash"]
    assert (found["first"], found["last"]) == (entries[0]["time"], entries[-1]["time"])
    assert [each["reason"] for each in found["not_sent"]] == [
        "DataError: [red]no",
        "\x1b[2J is not approved",
        "foreign bundle",
    ]


def test_what_a_person_reads(log, run):
    fill(log)
    code, out, _ = run()
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert "train.align 3 1 0 6 3,050" in words
    assert "train.align round 4 failed DataError: [red]no" in words
    assert "6 entries, the chain is whole" in words
    assert verify(log)[-1]["hash"] in out
    assert "\x1b" not in out


def test_nothing_has_left(run, log):
    code, out, _ = run()
    assert (code, out) == (0, f"{log}: nothing has left this site yet\n")
    assert json.loads(run("--json")[1])["hash"] == FIRST


def test_only_the_last_refusals_are_shown_singly(log):
    for number in range(LAST + 5):
        append(log, Event("message", "refused", f"no {number}", "train.align"))
    shown = summarise(log)["not_sent"]
    assert [each["reason"] for each in shown] == [f"no {number}" for number in range(5, LAST + 5)]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_log_that_was_changed_is_said_with_the_line(log, run, arguments):
    fill(log)
    log.write_text(log.read_text().replace('"round":1', '"round":9'))
    code, out, err = run(*arguments)
    assert (code, out) == (3, "")
    assert f"error: {log}: line 2: was changed" in err
