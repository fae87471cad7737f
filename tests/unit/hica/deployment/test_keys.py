"""A site's keys: made for their owner only, never overwritten, read by OpenSSH and Flower."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hica.deployment import keys
from hica.errors import ConfigurationError, StorageError

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed"
)


def ssh_keygen(*arguments) -> str:
    done = subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def pair(tmp_path) -> tuple[Path, keys.PublicKey]:
    path = tmp_path / "keys" / "site"
    return path, keys.generate(path)


def test_the_private_key_is_for_its_owner_only(pair):
    path, _ = pair
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_public_file_holds_the_public_half(pair):
    path, public = pair
    assert keys.read_public(keys.public_path(path)) == public
    assert public.openssh.startswith("ecdsa-sha2-nistp384 AAAA")
    assert keys.read_private(path).public_key() == load_pem_public_key(public.pem)


@pytest.mark.parametrize("lost", ["site", "site.pub"])
def test_an_existing_pair_is_never_overwritten(lost, pair):
    path, _ = pair
    path.with_name(lost).unlink()
    (kept,) = path.parent.iterdir()
    before = kept.read_bytes()
    with pytest.raises(ConfigurationError, match=f"{kept.name}: exists and is left alone"):
        keys.generate(path)
    assert list(path.parent.iterdir()) == [kept]
    assert kept.read_bytes() == before


def test_a_full_disk_leaves_a_pair_or_nothing(tmp_path, monkeypatch):
    write = keys.write_atomically

    def full_after_one(path, data, **mode):
        if path.suffix == ".pub":
            raise StorageError("full")
        write(path, data, **mode)

    monkeypatch.setattr(keys, "write_atomically", full_after_one)
    with pytest.raises(StorageError):
        keys.generate(tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


@needs_ssh_keygen
def test_the_fingerprint_is_the_one_ssh_keygen_prints(pair):
    path, public = pair
    said = ssh_keygen("-l", "-f", str(keys.public_path(path)))
    assert said.split()[:2] == ["384", keys.fingerprint(public)]


@needs_ssh_keygen
def test_keys_made_by_ssh_keygen_are_read(tmp_path):
    path = tmp_path / "theirs"
    ssh_keygen("-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "a comment", "-f", str(path))
    public = keys.read_public(keys.public_path(path))
    assert keys.read_private(path).public_key() == load_pem_public_key(public.pem)
    assert public.openssh in keys.public_path(path).read_text()


def test_a_private_key_handed_in_by_mistake(pair):
    path, _ = pair
    with pytest.raises(ConfigurationError, match="site: is a private key, which must never leave"):
        keys.read_public(path)


@needs_ssh_keygen
@pytest.mark.parametrize(
    ("kind", "called"),
    [(["ed25519"], "ssh-ed25519"), (["ecdsa", "-b", "256"], "ecdsa-sha2-nistp256")],
)
def test_a_key_of_another_type(kind, called, tmp_path):
    path = tmp_path / "theirs"
    ssh_keygen("-q", "-t", *kind, "-N", "", "-f", str(path))
    with pytest.raises(ConfigurationError, match=f"type {called}, needed is ecdsa-sha2-nistp384"):
        keys.read_public(keys.public_path(path))


@pytest.mark.parametrize("text", [b"", b"hello", b"ecdsa-sha2-nistp384 AAAA", b"\xff\x00"])
def test_no_public_key(text, tmp_path):
    path = tmp_path / "H1.pub"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"H1\.pub: is no public key.*keygen"):
        keys.read_public(path)


def test_a_public_key_is_read_behind_the_mark_of_windows_editors(tmp_path):
    made = keys.generate(tmp_path / "site")
    path = keys.public_path(tmp_path / "site")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert keys.read_public(path) == made


def test_no_public_file(tmp_path):
    with pytest.raises(ConfigurationError, match=r"H1\.pub: cannot be read: No such file"):
        keys.read_public(tmp_path / "H1.pub")


def test_no_private_file(tmp_path):
    with pytest.raises(ConfigurationError, match=r"site: cannot be read: No such file.*keygen"):
        keys.read_private(tmp_path / "site")


def test_a_private_key_that_others_can_read(pair):
    path, _ = pair
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"can be read by others\. Run: chmod 600"):
        keys.read_private(path)


def test_no_private_key(tmp_path):
    path = tmp_path / "site"
    path.write_text("hello")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="site: is no ecdsa-sha2-nistp384 private key"):
        keys.read_private(path)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", [["ed25519", "-N", ""], ["ecdsa", "-b", "384", "-N", "secret"]])
def test_a_private_key_flower_could_not_use(kind, tmp_path):
    path = tmp_path / "site"
    ssh_keygen("-q", "-t", *kind, "-f", str(path))
    with pytest.raises(ConfigurationError, match=r"no ecdsa.* private key without passphrase"):
        keys.read_private(path)
