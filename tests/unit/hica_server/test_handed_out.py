"""The start kits that lie there say what the server does."""

import pytest

from hica.deployment.keys import generate, public_path
from hica.errors import ConfigurationError
from hica_server.enrolment import enroll, revoke
from hica_server.handed_out import check_kits
from hica_server.provision import provision
from hica_server.settings import Folder, ServerSection, ServerSettings


@pytest.fixture
def folder(tmp_path, toy_study) -> Folder:
    """Two enrolled sites, `H1` with a kit and `H 2` without."""
    folder = Folder(tmp_path / "server")
    for name in ("H1", "H 2"):
        generate(tmp_path / name)
        enroll(folder, name, public_path(tmp_path / name))
    provision(folder, toy_study(), ServerSettings(), ["H1"])
    return folder


def test_kits_of_this_study_and_this_address_pass(folder, toy_study):
    check_kits(folder, toy_study(), ServerSettings())


def test_a_study_that_was_changed_since(folder, toy_study):
    words = r"H1\.zip: study_sha256 is \w{12}…, study\.toml has \w{12}…\n.*provision .* H1, hand"
    with pytest.raises(ConfigurationError, match=words):
        check_kits(folder, toy_study("alignment.shots=5"), ServerSettings())
    revoke(folder, "H1")
    check_kits(folder, toy_study("alignment.shots=5"), ServerSettings())


def test_an_address_that_was_changed_since(folder, toy_study):
    moved = ServerSettings(server=ServerSection(name="hica.example.org"))
    words = r"address is localhost:8443, server\.toml has hica\.example\.org:8443"
    with pytest.raises(ConfigurationError, match=words):
        check_kits(folder, toy_study(), moved)


def test_a_signing_key_that_was_made_anew(folder, toy_study):
    folder.signing_key.unlink()
    provision(folder, toy_study(), ServerSettings(), ["H 2"])
    with pytest.raises(ConfigurationError, match=r"H1\.zip: coordinator_key is .*signing\.key has"):
        check_kits(folder, toy_study(), ServerSettings())


def test_a_list_of_keys_that_was_changed_since(folder, toy_study, tmp_path):
    study = toy_study("privacy.secure_aggregation=true")
    generate(tmp_path / "H3")
    enroll(folder, "H3", public_path(tmp_path / "H3"))
    provision(folder, study, ServerSettings(), ["H1", "H 2", "H3"])
    check_kits(folder, study, ServerSettings())
    generate(tmp_path / "H4")
    enroll(folder, "H4", public_path(tmp_path / "H4"))
    provision(folder, study, ServerSettings(), ["H4"])
    with pytest.raises(
        ConfigurationError, match=r"(?s)keys_sha256 is .*provision .* 'H 2' H1 H3, hand"
    ):
        check_kits(folder, study, ServerSettings())


@pytest.mark.parametrize("content", [b"", b"no zip at all"])
def test_a_damaged_kit(folder, toy_study, content):
    (folder.kits / "H1.zip").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"H1\.zip: no start kit can be read.*provision"):
        check_kits(folder, toy_study(), ServerSettings())
