import base64
import socket
import ssl
import threading

import pytest
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

from hica.deployment.keys import generate, read_private
from hica.deployment.kit import Kit
from hica.errors import ConfigurationError, FederationError
from hica_client import network_checks
from hica_client.network_checks import MAX_AHEAD, MAX_BEHIND, check_clock, check_network, meet
from hica_client.preflight_report import Preflight

from .tls import Authority, proxying, serving


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Whatever proxy this machine has."""
    for name in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def ca(tmp_path, authority):
    path = tmp_path / "ca.crt"
    path.write_bytes(authority.pem)
    return path


@pytest.fixture
def certificate(tmp_path, authority):
    """Signs a certificate; by default a good one for this machine."""
    return lambda host="127.0.0.1", start=-1, end=365: authority.sign(tmp_path, host, start, end)


def kit(port, host="127.0.0.1"):
    return Kit(
        site="north",
        address=f"{host}:{port}",
        study_sha256="0" * 64,
        bundle_sha256="0" * 64,
        hica="0.1.0",
        flwr="1.41.0",
    )


def checked(port, ca, host="127.0.0.1"):
    found = Preflight()
    check_network(found, kit(port, host), ca)
    return found


def problem(port, ca, host="127.0.0.1"):
    """The one thing that is wrong."""
    found = checked(port, ca, host)
    [error] = found.problems
    assert isinstance(error, FederationError)
    assert "clock_ahead_seconds" not in found.facts
    return str(error)


def test_a_coordinator_that_is_ready(certificate, ca):
    with serving(certificate()) as port:
        found = checked(port, ca)
    assert (found.problems, found.notes) == ([], [])
    assert found.facts["certificate_days"] == 364
    assert found.facts["clock_ahead_seconds"] == pytest.approx(0, abs=3)


def test_a_name_that_does_not_exist(ca):
    words = problem(8443, ca, "coordinator.invalid")
    assert words.startswith("coordinator.invalid: the name cannot be resolved")
    assert "ask your IT for its DNS entry" in words


def test_a_port_where_nothing_listens(ca):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening, so that nobody else can
        port = taken.getsockname()[1]
        words = problem(port, ca)
    assert words.startswith(f"127.0.0.1:{port}: refuses the connection")
    assert "may not be running yet" in words


def test_a_port_that_never_answers(ca, monkeypatch):
    monkeypatch.setattr(network_checks, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        words = problem(port, ca)
    assert "no answer within 0.2 s; a firewall may drop the connection" in words
    assert f"ask your IT to allow outgoing TCP to 127.0.0.1:{port}" in words


def test_a_port_that_hangs_up(ca):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            connection, _ = server.accept()
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        words = problem(server.getsockname()[1], ca)
        thread.join()
    assert "cannot be reached" in words and "ask your IT" in words


def test_another_service_at_the_port(ca):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP ready\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        words = problem(server.getsockname()[1], ca)
        thread.join()
    assert "does not speak TLS as expected" in words


@pytest.mark.parametrize(
    ("host", "start", "end", "words"),
    [
        ("127.0.0.1", -30, -1, "has expired (this machine's clock says 2"),
        ("127.0.0.1", 1, 30, "is not valid yet (this machine's clock says 2"),
        ("127.0.0.2", -1, 365, "is not for 127.0.0.1; ask the coordinator for a kit"),
        ("elsewhere.example", -1, 365, "is not for 127.0.0.1; ask the coordinator for a kit"),
    ],
)
def test_a_certificate_that_is_not_valid(certificate, ca, host, start, end, words):
    with serving(certificate(host, start, end)) as port:
        found = problem(port, ca)
    assert found.startswith(f"127.0.0.1:{port}: the ")
    assert words in found


def test_a_certificate_for_another_name(certificate, ca):
    with serving(certificate("elsewhere.example")) as port:
        assert "is not for localhost" in problem(port, ca, "localhost")


def test_a_certificate_of_another_authority(tmp_path, certificate, ca):
    ca.write_bytes(Authority().pem)
    with serving(certificate()) as port:
        words = problem(port, ca)
    assert "is not from the kit's authority" in words
    assert "unpack the newest kit" in words and "TLS inspection" in words


@pytest.mark.parametrize("text", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_kit_whose_certificate_is_none(ca, text):
    ca.write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"ca\.crt: is not a certificate .*start kit anew"):
        meet(kit(8443), ca)


def test_a_certificate_that_ends_soon_is_noted(certificate, ca):
    with serving(certificate(end=10)) as port:
        found = checked(port, ca)
    assert found.problems == []
    assert "certificate ends in 9 days; remind them" in found.notes[0]


def test_a_coordinator_that_is_not_ready_is_noted(certificate, ca):
    with serving(certificate(), status=503) as port:
        found = checked(port, ca)
    assert found.problems == []
    assert "is not ready (HTTP status 503); it may not have been started yet" in found.notes[0]


@pytest.mark.parametrize(
    ("ahead", "side", "refused"),
    [
        (-20, "ahead of", True),
        (-600, "ahead of", True),
        (600, "behind", True),
        (60, "behind", False),
    ],
)
def test_clocks_that_differ(certificate, ca, ahead, side, refused):
    """`ahead`: of the coordinator's clock."""
    with serving(certificate(), ahead=ahead) as port:
        found = checked(port, ca)
    assert found.facts["clock_ahead_seconds"] == pytest.approx(-ahead, abs=3)
    assert f" s {side} the coordinator's: let NTP set it" in found.notes[0]
    words = "refuses a site that is 5 s ahead or 305 s behind"
    assert [words in str(error) for error in found.problems] == [True] * refused


def test_clocks_within_flowers_window_pass():
    for ahead in (0.0, 3.9, -3.9, -303.9):
        check_clock(ahead)
    for ahead in (4.1, 5.0, -304.1, -600.0):
        with pytest.raises(FederationError, match=rf"clock is {abs(ahead):.0f} s (ahead|behind)"):
            check_clock(ahead)


def test_the_window_is_the_one_of_the_installed_flower():
    assert MAX_AHEAD == SYSTEM_TIME_TOLERANCE
    assert MAX_BEHIND == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
)
def test_an_answer_that_no_coordinator_gives(certificate, ca, answer):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate())
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as server:

        def reply():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        words = problem(server.getsockname()[1], ca)
        thread.join()
    assert "has the coordinator's certificate but gives no answer" in words


def test_the_proxy_of_the_environment_is_used(certificate, ca, monkeypatch):
    with serving(certificate()) as port, proxying() as proxy:
        monkeypatch.setenv("https_proxy", f"http://hica:s%40fe@127.0.0.1:{proxy.port}")
        found = checked(port, ca)
        assert (found.problems, found.notes) == ([], [])
        assert proxy.requests == [f"127.0.0.1:{port}"]
        assert proxy.logins == [f"Basic {base64.b64encode(b'hica:s@fe').decode()}"]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert checked(port, ca).problems == []
    assert len(proxy.requests) == 1


def test_a_proxy_does_not_hide_what_is_wrong(certificate, ca, monkeypatch):
    with serving(certificate(end=-0.5, start=-1)) as port, proxying() as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        assert "has expired" in problem(port, ca)
    with proxying(allowed=False) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        words = problem(8443, ca)
    assert words.startswith(f"127.0.0.1:{proxy.port}: cannot be reached (Tunnel connection failed")
    assert "403" in words and "allow outgoing TCP to 127.0.0.1:8443" in words


@pytest.mark.parametrize(
    ("status", "fact", "notes"), [(204, True, 0), (404, False, 1), (503, None, 0)]
)
def test_whether_the_key_is_enrolled_is_asked(certificate, ca, tmp_path, status, fact, notes):
    generate(tmp_path / "key")
    found = Preflight()
    with serving(certificate(), enrolled=status) as port:
        check_network(found, kit(port), ca, read_private(tmp_path / "key"))
    assert found.facts.get("enrolled") is fact and found.problems == []
    assert ["has not enrolled this site's key" in note for note in found.notes] == [True] * notes
