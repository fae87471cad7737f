import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from hica.deployment.kit import roster_sha256
from hica.errors import ConfigurationError
from hica_client.approval import approve, approved, check_keys, decisions, revoke
from hica_client.site import load_site

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('[site]\nname = "north"\n[data]\nmanifest = "manifest.csv"\n')
    return load_site(path)


def test_nothing_is_approved_at_first(site, toy_study):
    assert not approved(site, toy_study().sha256)
    assert decisions(site) == {}


def test_an_approval_says_what_who_when_and_under_which_policy(site, toy_study):
    study = toy_study()
    approve(site, study, "dr-grey", NOON)
    assert approved(site, study.sha256)
    decision = decisions(site)[study.sha256]
    assert (decision.name, decision.user) == ("toy", "dr-grey")
    assert decision.time == "2026-03-01T12:00:00+01:00"
    assert decision.policy["min_count"] == 5


def test_a_study_changed_in_any_setting_is_another_study(site, toy_study):
    approve(site, toy_study(), "dr-grey", NOON)
    assert not approved(site, toy_study("alignment.margin=0.21").sha256)
    assert not approved(site, toy_study("study.seed=1").sha256)


def test_the_last_decision_counts_and_none_is_lost(site, toy_study):
    study, other = toy_study(), toy_study("study.seed=1")
    approve(site, study, "dr-grey", NOON)
    approve(site, other, "dr-grey", NOON)
    revoke(site, decisions(site)[study.sha256], "dr-yang", NOON + timedelta(hours=1))
    assert not approved(site, study.sha256)
    assert approved(site, other.sha256)
    lines = [json.loads(line) for line in site.approvals.read_text().splitlines()]
    assert [(line["user"], line["approved"]) for line in lines] == [
        ("dr-grey", True),
        ("dr-grey", True),
        ("dr-yang", False),
    ]
    approve(site, study, "dr-grey", NOON.astimezone(UTC))
    assert approved(site, study.sha256)


def test_an_approval_that_a_crash_cut_short_is_none(site, toy_study):
    study = toy_study()
    approve(site, study, "dr-grey", NOON)
    site.approvals.write_bytes(site.approvals.read_bytes()[:-1])
    assert not approved(site, study.sha256)
    approve(site, study, "dr-grey", NOON)
    assert approved(site, study.sha256)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{}", "line 2: study: Field required; restore the file from a backup"),
        ("no JSON", "line 2: line: Invalid JSON"),
    ],
)
def test_a_line_that_is_no_decision_is_named(site, toy_study, line, words):
    approve(site, toy_study(), "dr-grey", NOON)
    with site.approvals.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigurationError) as error:
        approved(site, toy_study().sha256)
    assert str(error.value).startswith(f"{site.approvals}: {words}")


def test_the_list_of_keys_is_approved_with_the_study(site, toy_study):
    study = toy_study("privacy.secure_aggregation=true")
    site.federation.kit.mkdir()
    listed = site.federation.kit / "keys.json"
    listed.write_text("{}")
    approve(site, study, "dr-grey", NOON, roster_sha256(site.federation.kit))
    check_keys(site, study.sha256)
    listed.write_text("{ }")
    with pytest.raises(ConfigurationError, match=r"not the list of keys that was approved.*hica-c"):
        check_keys(site, study.sha256)
    approve(site, study, "dr-grey", NOON)
    with pytest.raises(ConfigurationError, match="not the list of keys"):
        check_keys(site, study.sha256)
    listed.unlink()
    with pytest.raises(ConfigurationError, match=r"keys\.json: cannot be read"):
        check_keys(site, study.sha256)


def test_an_approval_of_a_version_without_keys_is_read(site, toy_study):
    approve(site, toy_study(), "dr-grey", NOON)
    line = json.loads(site.approvals.read_text())
    del line["keys"]
    site.approvals.write_text(json.dumps(line) + "\n")
    assert decisions(site)[toy_study().sha256].keys is None
