import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hica.deployment.keys import generate, public_path, read_public
from hica.errors import ConfigurationError
from hica_server.enrolment import enroll, lines, read_sites, revoke
from hica_server.settings import Folder


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "study")


@pytest.fixture
def new_key(tmp_path):
    """Makes a key and returns the path of its public part."""

    def make(name: str) -> Path:
        generate(tmp_path / name)
        return public_path(tmp_path / name)

    return make


def test_nobody_is_enrolled_at_first(folder):
    assert read_sites(folder) == {}
    assert lines({}) == ["nobody is enrolled"]


def test_an_enrolled_site_is_read_back(folder, new_key):
    path = new_key("a")
    site = enroll(folder, "St. Elsewhere", path)
    assert read_sites(folder) == {"St. Elsewhere": site}
    assert site.key == read_public(path)
    assert site.revoked is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", site.enrolled)
    assert re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", site.fingerprint)


def test_sites_are_listed_by_name(folder, new_key):
    for name in ("b", "a", "c"):
        enroll(folder, name, new_key(name))
    assert list(read_sites(folder)) == ["a", "b", "c"]


def test_enrolling_again_changes_nothing(folder, new_key):
    path = new_key("a")
    enroll(folder, "a", path)
    before = folder.sites.stat().st_ino
    assert enroll(folder, "a", path) == read_sites(folder)["a"]
    assert folder.sites.stat().st_ino == before


def test_a_revoked_site_stays_in_the_file(folder, new_key):
    site = enroll(folder, "a", new_key("a"))
    revoked = revoke(folder, "a")
    assert revoked.revoked is not None
    assert revoked.fingerprint == site.fingerprint
    assert read_sites(folder) == {"a": revoked}


def test_revoking_again_keeps_the_first_time(folder, new_key):
    enroll(folder, "a", new_key("a"))
    before = revoke(folder, "a")
    inode = folder.sites.stat().st_ino
    assert revoke(folder, "a") == before
    assert folder.sites.stat().st_ino == inode


def test_a_revoked_site_returns_with_a_new_key(folder, new_key):
    old = enroll(folder, "a", new_key("old"))
    revoke(folder, "a")
    new = enroll(folder, "a", new_key("new"))
    assert read_sites(folder) == {"a": new}
    assert new.revoked is None
    assert new.fingerprint != old.fingerprint


def test_a_revoked_key_never_comes_back(folder, new_key):
    old = new_key("old")
    enroll(folder, "a", old)
    revoke(folder, "a")
    for name in ("a", "b"):
        with pytest.raises(ConfigurationError, match=r"was revoked .* `hica-client keygen`"):
            enroll(folder, name, old)
    enroll(folder, "a", new_key("new"))
    with pytest.raises(ConfigurationError, match=re.escape(f"{old}: SHA256:")):
        enroll(folder, "b", old)


def test_one_key_has_one_name(folder, new_key):
    path = new_key("a")
    enroll(folder, "a", path)
    with pytest.raises(ConfigurationError, match=r"is enrolled already, as 'a'.*a new key, too"):
        enroll(folder, "b", path)
    assert list(read_sites(folder)) == ["a"]


def test_a_name_keeps_its_key_until_that_is_revoked(folder, new_key):
    site = enroll(folder, "a", new_key("a"))
    with pytest.raises(ConfigurationError) as error:
        enroll(folder, "a", new_key("other"))
    assert f"'a' is enrolled with another key, {site.fingerprint}" in str(error.value)
    assert "revoke that one first" in str(error.value)
    assert read_sites(folder) == {"a": site}


@pytest.mark.parametrize("name", ["", " a", "../a", "a\n", "a" * 65, "ä", '"'])
def test_names_are_those_of_a_site_file(folder, new_key, name):
    with pytest.raises(ConfigurationError, match=r"site name .*site\.toml"):
        enroll(folder, name, new_key("a"))


def test_a_private_key_is_refused(folder, new_key):
    with pytest.raises(ConfigurationError, match="private key"):
        enroll(folder, "a", new_key("a").with_suffix(""))
    assert not folder.sites.exists()


def test_revoking_a_stranger_names_the_known(folder, new_key):
    with pytest.raises(ConfigurationError, match=r"'x' is not enrolled in .*; there: none"):
        revoke(folder, "x")
    enroll(folder, "a", new_key("a"))
    with pytest.raises(ConfigurationError, match=r"there: a$"):
        revoke(folder, "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "sites.json: file: "),
        ('{"sites": {"a": {"public_key": "k"}}}', "sites.a.fingerprint"),
    ],
)
def test_a_damaged_file_is_named(folder, text, said):
    folder.sites.parent.mkdir(parents=True)
    folder.sites.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        read_sites(folder)
    assert str(folder.sites) in str(error.value)
    assert said in str(error.value)


def test_a_key_edited_by_hand_is_named(folder, new_key):
    site = enroll(folder, "a", new_key("a"))
    folder.sites.write_text(folder.sites.read_text().replace("AAAA", "AAA", 1))
    with pytest.raises(
        ConfigurationError, match=re.escape(f"key {site.fingerprint} of sites.json")
    ):
        _ = read_sites(folder)["a"].key


def test_edits_at_the_same_time_are_all_kept(folder, new_key):
    paths = {name: new_key(name) for name in "abcdef"}
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(lambda item: enroll(folder, *item), paths.items()))
    assert list(read_sites(folder)) == list(paths)


def test_the_list_says_who_is_in_and_who_is_out(folder, new_key):
    for name in ("a", "longer"):
        enroll(folder, name, new_key(name))
    revoke(folder, "a")
    out, within = lines(read_sites(folder))
    sites = read_sites(folder)
    assert out == f"a       {sites['a'].fingerprint}  revoked {sites['a'].revoked}"
    assert within == f"longer  {sites['longer'].fingerprint}  enrolled {sites['longer'].enrolled}"


def test_the_file_is_plain_json(folder, new_key):
    enroll(folder, "a", new_key("a"))
    table = json.loads(folder.sites.read_text())
    assert table["sites"]["a"].keys() == {"public_key", "fingerprint", "enrolled", "revoked"}
