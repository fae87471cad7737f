"""The start kit: whole, readable by people, and refused where its parts do not belong together."""

import hashlib
import json
import stat
import zipfile
from importlib.metadata import version

import pytest
from tests.coordinator import CA, PUBLIC

from hica.deployment import keys
from hica.deployment.kit import (
    Kit,
    read_coordinator_key,
    read_kit,
    read_roster,
    roster_json,
    write_kit,
)
from hica.errors import ConfigurationError, StorageError
from hica.study import Study, load_study, validated


@pytest.fixture
def study(toy_study):
    return toy_study()


@pytest.fixture
def kit(study) -> Kit:
    return Kit(
        site="H1",
        address="federation.example:8443",
        study_sha256=study.sha256,
        bundle_sha256="b" * 64,
        hica="0.1.0",
        flwr="1.41.0",
        coordinator_key=PUBLIC,
    )


@pytest.fixture
def unpacked(tmp_path, kit, study):
    return unpack(tmp_path, kit, study)


def unpack(tmp_path, kit, study):
    write_kit(tmp_path / "kits" / "H1.zip", kit, CA, study)
    folder = tmp_path / "kit"
    with zipfile.ZipFile(tmp_path / "kits" / "H1.zip") as archive:
        archive.extractall(folder)
    return folder


def rewrite(file, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_what_is_written_is_read(unpacked, kit, study):
    of_ca = {"ca_sha256": hashlib.sha256(CA).hexdigest()}
    assert read_kit(unpacked) == (kit.model_copy(update=of_ca), study)
    assert (unpacked / "ca.crt").read_bytes() == CA


def test_the_coordinator_s_key_is_read_as_it_was_written(unpacked):
    assert keys.public_key(read_coordinator_key(unpacked)).openssh == PUBLIC


@pytest.mark.parametrize("read", [read_kit, read_coordinator_key])
def test_a_kit_of_before_without_the_coordinator_s_key(unpacked, read):
    kit = json.loads((unpacked / "kit.json").read_text())
    del kit["coordinator_key"]
    (unpacked / "kit.json").write_text(json.dumps(kit))
    said = r"kit\.json: has no key of the coordinator.*ask the coordinator for a new start kit"
    with pytest.raises(ConfigurationError, match=said):
        read(unpacked)


def test_a_coordinator_s_key_that_is_none(unpacked):
    rewrite(unpacked / "kit.json", coordinator_key="ssh-rsa AAAA")
    with pytest.raises(ConfigurationError, match=r"kit\.json: coordinator_key: is no public key"):
        read_kit(unpacked)


def test_study_json_is_what_the_hash_is_taken_of(unpacked, study):
    assert hashlib.sha256((unpacked / "study.json").read_bytes()).hexdigest() == study.sha256


def test_the_study_for_people_is_the_same_study(unpacked, study):
    assert load_study(unpacked / "study.toml").sha256 == study.sha256


def test_the_same_content_gives_the_same_bytes(tmp_path, kit, study):
    for name in ("a.zip", "b.zip"):
        write_kit(tmp_path / name, kit, CA, study)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_whoever_runs_the_site_can_read_what_another_user_unpacks(tmp_path, unpacked):
    with zipfile.ZipFile(tmp_path / "kits" / "H1.zip") as archive:
        modes = {stat.S_IMODE(entry.external_attr >> 16) for entry in archive.infolist()}
    assert modes == {0o644}


def test_instructions_lead_to_a_running_site(unpacked, kit, study):
    text = (unpacked / "README.txt").read_text()
    steps = ["init", "keygen", "check", "approve", "run"]
    places = [text.index(f"hica-client {step} hospital") for step in steps]
    assert places == sorted(places)
    assert f"approve hospital/site.toml {study.sha256[:12]}\n" in text
    for said in (kit.address, study.sha256, 'name = "H1"', "HiCA 0.1.0", "audit"):
        assert said in text


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("federation.example:8443", "federation.example", 8443),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
    ],
)
def test_host_and_port_of_an_address(address, host, port, kit):
    at = kit.model_copy(update={"address": address})
    assert Kit.model_validate(at.model_dump()) == at
    assert (at.host, at.port) == (host, port)


@pytest.mark.parametrize(
    "address", ["federation.example", "federation.example:0", "h:65536", "https://h:1", "a b:1", ""]
)
def test_no_address(address, kit):
    with pytest.raises(
        ConfigurationError, match=r"kit\.json: .*(give host:port|a port lies between)"
    ):
        validated(Kit, kit.model_dump() | {"address": address}, "kit.json")


@pytest.mark.parametrize("name", ["ca.crt", "kit.json", "study.json"])
def test_a_missing_file(name, unpacked):
    (unpacked / name).unlink()
    said = f"{name}: cannot be read: No such file.*unpack the coordinator's start kit"
    with pytest.raises(ConfigurationError, match=said):
        read_kit(unpacked)


def test_no_kit_at_all(tmp_path):
    with pytest.raises(ConfigurationError, match=r"or name its folder in federation\.kit"):
        read_kit(tmp_path / "kit")


@pytest.mark.parametrize("text", ["", "{", "\xff"])
def test_a_damaged_kit_file(text, unpacked):
    (unpacked / "kit.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"kit\.json: not JSON .*unpack .* anew"):
        read_kit(unpacked)


@pytest.mark.parametrize("text", ["[]", "{}", '{"site": "H1"}'])
def test_a_kit_file_that_is_no_kit(text, unpacked):
    (unpacked / "kit.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"kit\.json: "):
        read_kit(unpacked)


def test_files_of_two_kits(unpacked, toy_study):
    (unpacked / "study.json").write_text(toy_study("study.seed=7").canonical_json())
    with pytest.raises(ConfigurationError, match=r"study\.json: is not the study that kit\.json"):
        read_kit(unpacked)


def test_a_study_of_a_newer_version(unpacked):
    """It has a setting that is not known here."""
    study = unpacked / "study.json"
    rewrite(study, tomorrow={"epsilon": 1})
    rewrite(
        unpacked / "kit.json",
        study_sha256=hashlib.sha256(study.read_bytes()).hexdigest(),
        hica="7.0.0",
    )
    said = r"(?s)does not read the study that hica 7\.0\.0 wrote.*7\.0\.0\n.*tomorrow: unknown key"
    with pytest.raises(ConfigurationError, match=said):
        read_kit(unpacked)


def test_a_study_of_an_older_version(unpacked):
    """It lacks a setting that has a default here: another study results."""
    study = unpacked / "study.json"
    table = json.loads(study.read_text())
    del table["text"]["epochs"]
    study.write_text(json.dumps(table))
    assert Study.model_validate(table)
    rewrite(
        unpacked / "kit.json",
        study_sha256=hashlib.sha256(study.read_bytes()).hexdigest(),
        hica="0.0.1",
    )
    said = r"does not read the study that hica 0\.0\.1 wrote .* of the coordinator: 0\.0\.1$"
    with pytest.raises(ConfigurationError, match=said):
        read_kit(unpacked)


def test_a_kit_that_cannot_be_written(tmp_path, kit, study):
    (tmp_path / "kits").write_text("")
    with pytest.raises(StorageError, match=r"H1\.zip: cannot be written"):
        write_kit(tmp_path / "kits" / "H1.zip", kit, CA, study)


# --- The list of the sites' keys -----------------------------------------------------------------


@pytest.fixture
def public(tmp_path):
    return {name: keys.generate(tmp_path / name) for name in ("north", "south")}


def laid(folder, text):
    folder.mkdir()
    (folder / "keys.json").write_bytes(text)
    return folder


def test_keys_are_read_as_they_were_written(tmp_path, public):
    text = roster_json(public)
    assert read_roster(laid(tmp_path / "kit", text)) == public
    assert text == roster_json(dict(reversed(public.items())))


def test_a_kit_without_keys_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigurationError, match=r"keys\.json: missing.*hica-server provision"):
        read_roster(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "no table of sites and keys"),
        (b'{"north": "ssh-rsa AAAA"}', "north: is no public key in OpenSSH"),
        (b'{"north": null}', "north: is no public key"),
    ],
)
def test_a_damaged_list_of_keys(tmp_path, text, words):
    with pytest.raises(ConfigurationError, match=words):
        read_roster(laid(tmp_path / "kit", text))


def test_two_sites_with_one_key_are_one(tmp_path, public):
    same = roster_json({"north": public["north"], "south": public["north"]})
    with pytest.raises(ConfigurationError, match="north and south have the same key"):
        read_roster(laid(tmp_path / "kit", same))


def test_keys_and_kit_belong_together(tmp_path, public, toy_study):
    study = toy_study("privacy.secure_aggregation=true")
    roster = roster_json(public)
    kit = Kit(
        site="north",
        address="h:1",
        study_sha256=study.sha256,
        bundle_sha256="0" * 64,
        hica=version("hica"),
        flwr="1",
        coordinator_key=PUBLIC,
        keys_sha256=hashlib.sha256(roster).hexdigest(),
    )

    def unpack(kit, roster, name):
        write_kit(tmp_path / f"{name}.zip", kit, CA, study, roster)
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        return tmp_path / name

    assert read_kit(unpack(kit, roster, "whole"))[0].keys_sha256 == kit.keys_sha256
    with pytest.raises(ConfigurationError, match=r"is not the list of keys that kit\.json names"):
        read_kit(unpack(kit, roster_json({"north": public["south"]}), "swapped"))
    without = kit.model_copy(update={"keys_sha256": None})
    with pytest.raises(ConfigurationError, match="the start kit has no list of the sites' keys"):
        read_kit(unpack(without, None, "without"))
