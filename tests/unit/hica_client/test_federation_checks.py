import hashlib
from datetime import UTC, datetime

import pytest

from hica.deployment import keys
from hica.deployment.kit import roster_json
from hica_client import federation_checks
from hica_client.approval import approve
from hica_client.audit import Event, append
from hica_client.preflight import preflight
from hica_client.site import load_site

from .tls import Authority, serving


def offline(site_file):
    return preflight(site_file, offline=True)


def problems(found):
    return [f"{type(error).__name__}: {error}" for error in found.problems]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_a_site_that_may_run_against_a_real_tls_server(
    enrolled_site, toy_study, unpack_kit, tmp_path
):
    site, study, authority = load_site(enrolled_site), toy_study(), Authority()
    approve(site, study, "dr-grey", datetime(2026, 3, 1, tzinfo=UTC))
    with serving(authority.sign(tmp_path, "127.0.0.1", -1, 365), enrolled=204) as port:
        unpack_kit(enrolled_site, study, authority.pem, address=f"127.0.0.1:{port}")
        found = preflight(enrolled_site)
    assert found.facts["enrolled"] is True
    assert (problems(found), found.notes) == ([], [])
    assert found.facts["coordinator"] == f"127.0.0.1:{port}"
    assert found.facts["key"].startswith("SHA256:")
    assert found.facts["approved"] is True
    assert found.facts["certificate_days"] == 364
    assert found.facts["study_sha256"] == study.sha256  # the kit's, as none was named


def test_a_network_that_is_down_is_one_problem_among_others(enrolled_site, unpack_kit, toy_study):
    unpack_kit(enrolled_site, toy_study(), Authority().pem, address="nowhere.invalid:8443")
    (enrolled_site.parent / "3.png").write_bytes(b"")
    said = problems(preflight(enrolled_site))
    assert said[0].startswith("FederationError: nowhere.invalid: the name cannot be resolved")
    assert "3.png: cannot be decoded" in said[1]


def test_offline_connects_to_nobody_and_notes_the_missing_approval(
    enrolled_site, toy_study, monkeypatch
):
    monkeypatch.setattr(federation_checks, "check_network", None)
    found = offline(enrolled_site)
    sha = toy_study().sha256[:12]
    assert problems(found) == []
    assert found.facts["approved"] is False
    assert f"run: hica-client approve {enrolled_site} {sha}" in found.notes[0]


def test_without_a_kit_nothing_is_checked(enrolled_site):
    for file in (enrolled_site.parent / "kit").iterdir():
        file.unlink()
    (enrolled_site.parent / "kit").rmdir()
    found = preflight(enrolled_site)
    assert found.problems == []
    assert not {"key", "coordinator", "approved", "study"} & found.facts.keys()


def test_a_study_named_goes_before_that_of_the_kit(enrolled_site, tmp_path, toy_study):
    import tomli_w

    other = toy_study("study.seed=5")
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(other.model_dump(mode="json", exclude_none=True)))
    assert preflight(enrolled_site, path, offline=True).facts["study_sha256"] == other.sha256


def test_a_kit_that_is_damaged_does_not_hide_the_rest(enrolled_site):
    (enrolled_site.parent / "kit" / "kit.json").write_text("{")
    (enrolled_site.parent / "keys" / "site").chmod(0o644)
    said = problems(offline(enrolled_site))
    assert "keys/site: can be read by others. Run: chmod 600" in said[0]
    assert "kit.json: not JSON" in said[1] and "start kit anew" in said[1]


def test_a_missing_key(enrolled_site):
    (enrolled_site.parent / "keys" / "site.pub").unlink()
    [words] = problems(offline(enrolled_site))
    assert "site.pub: cannot be read" in words


def test_a_kit_without_the_coordinator_s_key(enrolled_site, unpack_kit, toy_study):
    unpack_kit(enrolled_site, toy_study(), coordinator_key=None)
    [words] = problems(offline(enrolled_site))
    assert "kit.json: has no key of the coordinator" in words
    assert "ask the coordinator for a new start kit" in words


def test_the_kit_of_another_site(enrolled_site, unpack_kit, toy_study):
    unpack_kit(enrolled_site, toy_study(), site="south")
    [words] = problems(offline(enrolled_site))
    assert "is the kit of 'south', but site.name is 'north': set name = \"south\"" in words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"flwr": "1.40.2"}, "the coordinator has Flower 1.40.2, this site needs 1.41: install"),
        ({"flwr": "2.41.0"}, "the coordinator has Flower 2.41.0, this site needs 1.41: install"),
        ({"bundle_sha256": "a" * 64}, "the coordinator's bundle is aaaaaaaaaaaa, this site runs"),
    ],
)
def test_a_coordinator_of_another_version(enrolled_site, unpack_kit, toy_study, fields, words):
    unpack_kit(enrolled_site, toy_study(), **fields)
    [said] = problems(offline(enrolled_site))
    assert words in said


def test_another_hica_is_noted_and_another_patch_of_flower_is_nothing(
    enrolled_site, unpack_kit, toy_study
):
    unpack_kit(enrolled_site, toy_study(), hica="0.0.9", flwr="1.41.99")
    found = offline(enrolled_site)
    assert problems(found) == []
    assert "the coordinator has hica 0.0.9, this site" in found.notes[0]


def test_a_policy_that_forbids_the_study(enrolled_site):
    text = enrolled_site.read_text().replace(
        "min_count = 3", 'min_count = 9\ntensors = ["shared.*"]'
    )
    enrolled_site.write_text(text)
    first, second = problems(offline(enrolled_site))
    assert first.startswith(
        f"ConfigurationError: {enrolled_site}: the study shows counts of 3 patients"
    )
    assert "counts" in second and "policy.tensors" in second


def test_a_public_key_of_another_site_is_a_problem(enrolled_site, tmp_path):
    keys.generate(tmp_path / "other")
    public = load_site(enrolled_site).federation.key.with_suffix(".pub")
    public.write_bytes(keys.public_path(tmp_path / "other").read_bytes())
    [words] = problems(offline(enrolled_site))
    assert f"{public}: is not the public key of {public.with_suffix('')}" in words
    assert "ssh-keygen -y -f" in words


@pytest.mark.parametrize("ca", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_an_authority_that_is_none_is_a_problem_also_offline(
    enrolled_site, toy_study, unpack_kit, ca
):
    unpack_kit(enrolled_site, toy_study(), ca)
    [words] = problems(offline(enrolled_site))
    assert "kit/ca.crt: is no certificate of an authority" in words and "anew" in words


def test_another_authority_than_the_kits_is_a_problem(enrolled_site, toy_study, unpack_kit):
    unpack_kit(enrolled_site, toy_study(), ca_sha256="0" * 64)
    [words] = problems(offline(enrolled_site))
    assert "kit/ca.crt: is another authority's certificate than kit.json names" in words


def test_an_audit_log_that_was_tampered_with(enrolled_site):
    log = load_site(enrolled_site).audit_log
    append(log, Event("message", "sent", bytes=12345))
    log.write_text(log.read_text().replace("12345", "54321"))
    [words] = problems(offline(enrolled_site))
    assert "audit.jsonl: line 1: was changed" in words


def test_another_flower_than_hica_needs(enrolled_site, monkeypatch):
    from hica.deployment import flower_version

    monkeypatch.setattr(flower_version.importlib.metadata, "version", lambda name: "1.42.0")
    said = problems(offline(enrolled_site))
    assert any("1.42.0 is installed here, HiCA needs 1.41" in words for words in said)


# --- The list of the sites' keys -----------------------------------------------------------------


@pytest.fixture
def listed(enrolled_site, toy_study, unpack_kit):
    """Lays a kit with this list of keys; returns `site.toml`."""

    def lay(keys_of):
        text = roster_json(keys_of)
        digest = hashlib.sha256(text).hexdigest()
        (enrolled_site.parent / "kit" / "keys.json").write_bytes(text)
        unpack_kit(enrolled_site, toy_study("privacy.secure_aggregation=true"), keys_sha256=digest)
        return enrolled_site

    return lay


def test_a_site_on_the_list_with_its_own_key(listed, enrolled_site, tmp_path):
    own = keys.read_public(enrolled_site.parent / "keys" / "site.pub")
    found = offline(listed({"north": own, "south": keys.generate(tmp_path / "other")}))
    assert (problems(found), found.facts["sites"]) == ([], "north, south")


def test_a_site_that_the_others_would_refuse(listed, tmp_path):
    other = keys.generate(tmp_path / "other")
    for name in ("north", "south"):
        [words] = problems(offline(listed({name: other})))
        assert "does not list 'north' with the key of this site" in words
        assert "ask for a new start kit" in words
