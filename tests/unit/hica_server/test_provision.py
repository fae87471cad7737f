import hashlib
import socket
import ssl
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.keys import public_key
from hica.deployment.kit import read_kit, read_roster, roster_sha256
from hica.errors import ConfigurationError
from hica_server.enrolment import revoke
from hica_server.provision import kit_files, provision, require_provisioned, signing_key
from hica_server.settings import Folder, ServerSection, ServerSettings


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "study")


@pytest.fixture
def provisioned(folder, make_study):
    """Provisions `folder`; arguments are those of `provision` and `server`, a [server] section."""

    def make(*sites: str, server: dict | None = None, **others):
        settings = ServerSettings(server=ServerSection(**server or {}))
        return provision(folder, make_study(), settings, sites, **others)

    return make


def unpack(kit: Path, folder: Path) -> None:
    with zipfile.ZipFile(kit) as archive:
        archive.extractall(folder)


def handshake(folder: Folder, host: str) -> None:
    """Connect to a TLS server with the folder's certificate as a site would."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder.certificate, folder.key)
    client = ssl.create_default_context(cafile=folder.ca_certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["hica.example.org", "localhost", "127.0.0.1"])
def test_a_site_that_trusts_the_authority_trusts_the_server(folder, provisioned, host):
    provisioned(server={"name": "hica.example.org"})
    handshake(folder, host)


@pytest.mark.parametrize("name", ["10.1.2.3", "2001:db8::7", "h" + 9 * ".long-labels" + ".org"])
def test_the_server_may_be_an_address_or_have_a_long_name(folder, provisioned, name):
    provisioned(server={"name": name})
    handshake(folder, name)


def test_under_another_name_it_is_not_trusted(folder, provisioned):
    provisioned(server={"name": "hica.example.org"})
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(folder, "other.example.org")


def test_another_federation_is_not_trusted(folder, provisioned, tmp_path, make_study):
    provisioned()
    other = Folder(tmp_path / "other")
    provision(other, make_study(), ServerSettings(), [])
    folder.ca_certificate.write_bytes(other.ca_certificate.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(folder, "localhost")


def test_the_server_cannot_sign_for_others(folder, provisioned):
    provisioned()
    certificate = x509.load_pem_x509_certificate(folder.certificate.read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca


def test_an_expired_certificate_is_not_trusted(folder, provisioned):
    provisioned(days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(folder, "localhost")


def test_certificates_are_good_from_yesterday_for_as_long_as_asked(folder, provisioned):
    made = provisioned(days=30)
    ca = x509.load_pem_x509_certificate(folder.ca_certificate.read_bytes())
    server = x509.load_pem_x509_certificate(folder.certificate.read_bytes())
    hour = timedelta(hours=1)
    for certificate, days in ((ca, 3650), (server, 30)):
        age = datetime.now(UTC) - certificate.not_valid_before_utc
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert abs(age - timedelta(days=1)) < hour
        assert abs(left - timedelta(days=days)) < hour
    assert made.expires == server.not_valid_after_utc


def test_private_keys_are_for_the_owner_only(folder, provisioned):
    provisioned()
    for path in (folder.ca_key, folder.key, folder.signing_key):
        assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_again_keeps_keys_and_certificates(folder, provisioned):
    files = (folder.ca_certificate, folder.ca_key, folder.certificate, folder.key)
    files += (folder.signing_key,)
    assert provisioned().renewed
    before = [path.read_bytes() for path in files]
    assert not provisioned().renewed
    assert [path.read_bytes() for path in files] == before


def test_renewing_makes_a_certificate_of_the_same_key(folder, provisioned):
    provisioned(days=-1)
    authority, key = folder.ca_certificate.read_bytes(), folder.key.read_bytes()
    assert provisioned(renew=True).renewed
    assert (folder.ca_certificate.read_bytes(), folder.key.read_bytes()) == (authority, key)
    handshake(folder, "localhost")


def test_another_name_needs_another_certificate(folder, provisioned):
    provisioned()
    assert provisioned(server={"name": "hica.example.org"}).renewed
    handshake(folder, "hica.example.org")


def test_kits_handed_out_outlive_a_lost_certificate_of_the_authority(folder, provisioned):
    provisioned()
    handed_out = folder.ca_certificate.read_bytes()
    folder.ca_certificate.unlink()
    provisioned(renew=True)
    folder.ca_certificate.write_bytes(handed_out)
    handshake(folder, "localhost")


@pytest.mark.parametrize("name", ["ca_key", "key", "ca_certificate", "signing_key"])
def test_a_damaged_file_is_named_and_not_replaced(folder, provisioned, name):
    provisioned()
    path = getattr(folder, name)
    path.write_text("torn")
    with pytest.raises(ConfigurationError) as error:
        provisioned(renew=True)
    assert str(error.value).startswith(f"{path}: no ")
    assert "restore the folder `federation` from a backup" in str(error.value)
    assert path.read_text() == "torn"


def test_a_damaged_certificate_of_the_server_is_made_anew_when_asked(folder, provisioned):
    provisioned()
    folder.certificate.write_text("torn")
    with pytest.raises(ConfigurationError) as error:
        provisioned()
    assert str(error.value).startswith(f"{folder.certificate}: no certificate can be read")
    assert str(error.value).endswith(f"hica-server provision {folder.root} --renew")
    provisioned(renew=True)
    handshake(folder, "localhost")


def test_a_key_of_another_kind_is_refused(folder, provisioned):
    provisioned()
    other = ed25519.Ed25519PrivateKey.generate()
    folder.key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError, match=r"server\.key: is not the key HiCA made"):
        provisioned(renew=True)


def test_a_kit_holds_what_the_site_needs(folder, provisioned, make_study, tmp_path):
    made = provisioned("H1", server={"name": "hica.example.org", "port": 443})
    unpack(made.kits["H1"], tmp_path / "kit")
    kit, study = read_kit(tmp_path / "kit")
    assert study == make_study()
    assert kit.model_dump() == {
        "site": "H1",
        "address": "hica.example.org:443",
        "study_sha256": make_study().sha256,
        "bundle_sha256": BUNDLE_SHA256,
        "hica": metadata.version("hica"),
        "flwr": metadata.version("flwr"),
        "coordinator_key": public_key(signing_key(folder).public_key()).openssh,
        "keys_sha256": None,
        "ca_sha256": hashlib.sha256(folder.ca_certificate.read_bytes()).hexdigest(),
    }
    assert (tmp_path / "kit" / "ca.crt").read_bytes() == folder.ca_certificate.read_bytes()


def test_nothing_secret_is_in_a_kit(folder, provisioned, tmp_path):
    unpack(provisioned("H1").kits["H1"], tmp_path / "kit")
    text = b"".join(path.read_bytes() for path in (tmp_path / "kit").iterdir())
    assert b"PRIVATE" not in text


def test_a_changed_study_makes_the_kits_anew(folder, make_study, tmp_path):
    for shots in (3, 4):
        study = make_study(f"alignment.shots={shots}")
        unpack(provision(folder, study, ServerSettings(), ["H1"]).kits["H1"], tmp_path / "kit")
        assert read_kit(tmp_path / "kit")[1] == study


def test_kits_lie_in_the_folder_whatever_the_site_is_called(folder):
    files = kit_files(folder, ["H1", "St. Elsewhere/a ward", "a/../../../b"])
    assert [path.name for path in files.values()] == [
        "H1.zip",
        "St.%20Elsewhere%2Fa%20ward.zip",
        "a%2F..%2F..%2F..%2Fb.zip",
    ]
    assert {path.parent for path in files.values()} == {folder.kits}


def test_names_that_look_alike_have_kits_of_their_own(provisioned, tmp_path):
    names = ("a b", "a/b", "a-b", "a_b", "a+b")
    kits = {name: path for each in names for name, path in provisioned(each).kits.items()}
    for name, path in kits.items():
        unpack(path, tmp_path / path.name)
        assert read_kit(tmp_path / path.name)[0].site == name


def test_an_expired_certificate_is_not_kept(folder, make_study):
    provision(folder, make_study(), ServerSettings(), [], renew=True, days=-1)
    with pytest.raises(ConfigurationError, match=r"expired on .*hica-server provision .* --renew"):
        provision(folder, make_study(), ServerSettings(), ["H1"])
    assert not folder.kits.exists()
    assert provision(folder, make_study(), ServerSettings(), ["H1"], renew=True).renewed


@pytest.mark.parametrize(
    ("name", "address", "warned"),
    [
        ("localhost", "localhost:8443", True),
        ("::1", "[::1]:8443", True),
        ("hica.example.org", "hica.example.org:8443", False),
    ],
)
def test_where_hospitals_will_connect_to_is_told(folder, make_study, name, address, warned):
    settings = ServerSettings(server=ServerSection(name=name))
    lines = provision(folder, make_study(), settings, ["H1"]).lines()
    assert f"address      {address}, which hospitals connect to" in lines
    assert any("Set server.name in server.toml" in line for line in lines) == warned


def test_a_name_no_site_can_have_is_refused(folder, provisioned):
    with pytest.raises(ConfigurationError, match=r"site name '\.\./x'"):
        provisioned("../x")
    assert not folder.root.exists()


@pytest.mark.parametrize("name", ["ca_certificate", "certificate", "key"])
def test_a_server_says_what_it_misses(folder, provisioned, name):
    provisioned()
    require_provisioned(folder)
    path = getattr(folder, name)
    path.unlink()
    with pytest.raises(ConfigurationError) as error:
        require_provisioned(folder)
    remedy = f"hica-server provision {folder.root}"
    assert str(error.value) == f"{path}: no such file; make it with: {remedy}"


def test_a_server_without_its_signing_key_says_that_every_hospital_needs_a_kit(folder, provisioned):
    provisioned()
    folder.signing_key.unlink()
    said = r"signing\.key: no such file, .*a new start kit for every hospital, with: hica-server"
    with pytest.raises(ConfigurationError, match=said):
        require_provisioned(folder)
    with pytest.raises(ConfigurationError, match=r"signing\.key: no private key can be read"):
        signing_key(folder)


def test_a_signing_key_that_is_new_in_an_old_federation_is_told(folder, provisioned):
    assert not provisioned("H1").new_key
    folder.signing_key.unlink()
    told = "signing key  new: start kits that were made before are of no use"
    assert told in provisioned("H1").lines()
    assert told not in provisioned("H1").lines()


def test_what_was_made_is_told(folder, provisioned):
    first, second = provisioned("H1"), provisioned()
    where = first.lines()[1:3]
    assert where[0] == "address      localhost:8443, which hospitals connect to"
    assert first.lines() == [
        f"certificate  new, good until {first.expires:%Y-%m-%d}",
        *where,
        f"start kit    {folder.kits / 'H1.zip'}",
        "Hand each hospital its kit on a way on which nobody can exchange it.",
    ]
    assert second.lines() == [f"certificate  kept, good until {first.expires:%Y-%m-%d}", *where]


# --- With secure aggregation ---------------------------------------------------------------------


@pytest.fixture
def secure(folder, make_study):
    """Provisions `folder` for a study with secure aggregation."""
    study = make_study("privacy.secure_aggregation=true")
    return lambda *sites: provision(folder, study, ServerSettings(), sites)


def test_every_kit_has_the_keys_of_all_enrolled_sites(folder, secure, enrol, tmp_path):
    nodes = {name: enrol(name) for name in ("north", "south", "west", "left")}
    revoke(folder, "left")
    made = secure("north", "south")
    for site in ("north", "south"):
        unpack(made.kits[site], tmp_path / site)
        kit, _ = read_kit(tmp_path / site)
        assert kit.keys_sha256 == roster_sha256(tmp_path / site)
        assert kit.keys_sha256 in (tmp_path / site / "README.txt").read_text()
        roster = read_roster(tmp_path / site)
        assert roster == {name: nodes[name].public for name in ("north", "south", "west")}
    assert read_roster(folder.roster.parent) == roster
    assert "keys of      north, south, west" in made.lines()


def test_a_site_that_is_not_enrolled_gets_no_such_kit(folder, secure, enrol):
    for name in ("north", "south", "west"):
        enrol(name)
    with pytest.raises(ConfigurationError, match=r"east: not enrolled.*keygen.*hica-server enroll"):
        secure("north", "east")
    assert not folder.roster.exists()


def test_with_too_few_sites_for_a_sum_there_is_no_kit_but_a_certificate(folder, secure, enrol):
    for name in ("north", "south"):
        enrol(name)
    with pytest.raises(ConfigurationError, match="2 sites are enrolled, a secure sum of this stu"):
        secure("north", "south")
    assert secure().renewed
