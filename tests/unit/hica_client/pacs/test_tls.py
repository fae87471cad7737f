"""Both protocols over real TLS on loopback: who is not of the authority is not talked to."""

import http.server
import ssl
import threading

import pytest
from tests.unit.hica_client.pacs.fake_node import FakeNode
from tests.unit.hica_client.tls import Authority

from hica.deployment.supervision import free_port
from hica_client.pacs.address import Node, Own, Web
from hica_client.pacs.dicomweb import DicomWeb
from hica_client.pacs.dimse import Dimse
from hica_client.pacs.errors import PacsError
from hica_client.pacs.pulling import pull
from hica_client.pacs.selection import Selection
from hica_client.pacs.summary import Summary
from hica_client.site import PacsSection

US = Selection(modalities=("US",))


@pytest.fixture
def signed(tmp_path):
    """An authority's file, and certificate and key for loopback that it signed."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    return tmp_path / "ca.pem", *authority.sign(tmp_path, "127.0.0.1", -1, 30)


@pytest.fixture
def foreign(tmp_path):
    (tmp_path / "foreign.pem").write_bytes(Authority().pem)
    return tmp_path / "foreign.pem"


def server_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def dimse(port, own_port=None, **settings):
    node = Node("PACS", "127.0.0.1", port, encrypted=True)
    section = PacsSection(timeout=5.0, patience=5.0, **settings)
    return Dimse(node, Own("HICA", port=own_port), section, pause=lambda _: None)


def test_c_get_over_tls(signed, store):
    ca, *pair = signed
    found = Summary()
    with (
        FakeNode().running(context=server_context(*pair)) as port,
        dimse(port, authority=ca) as archive,
    ):
        pull(archive, US, store, found)
    assert found.whole == 4


def test_a_dicom_node_of_another_authority_is_not_spoken_to(signed, foreign, store):
    node = FakeNode()
    with (
        node.running(context=server_context(*signed[1:])) as port,
        dimse(port, authority=foreign) as archive,
        pytest.raises(PacsError, match="not signed by anyone trusted here; set authority"),
    ):
        pull(archive, US, store, Summary())


def test_a_dicom_node_without_tls_is_told_apart(signed, store):
    with (
        FakeNode().running() as port,
        dimse(port, authority=signed[0]) as archive,
        pytest.raises(PacsError, match=r"may not be its TLS port|answers without TLS"),
    ):
        pull(archive, US, store, Summary())


def test_what_comes_by_c_move_to_a_tls_node_has_to_come_over_tls(signed, store):
    ca, certificate, key = signed
    own_port = free_port()
    node = FakeNode()
    node.destination = ("127.0.0.1", own_port)  # the fake sends without TLS: nothing gets in
    found = Summary()
    with (
        node.running(context=server_context(certificate, key)) as port,
        dimse(port, own_port, authority=ca, certificate=certificate, key=key) as archive,
        pytest.raises(PacsError, match="move destination unknown"),
    ):
        pull(archive, US, store, found)
    assert found.whole == 0


@pytest.fixture
def https(signed):
    """A server that answers every search with nothing."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = server_context(*signed[1:]).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def searched(port, scheme="https", host="127.0.0.1", **settings):
    web = Web(f"{scheme}://{host}:{port}/rs")
    with DicomWeb(web, PacsSection(timeout=5.0, **settings), pause=lambda _: None) as archive:
        return list(archive.studies(next(US.queries())))


def test_https_of_the_authority(signed, https):
    assert searched(https, authority=signed[0]) == []


def test_https_of_another_authority(foreign, https):
    with pytest.raises(PacsError, match="not signed by anyone trusted here"):
        searched(https, authority=foreign)


def test_https_under_another_name(signed, https):
    with pytest.raises(PacsError, match="its certificate is for another name"):
        searched(https, host="localhost", authority=signed[0])


def test_no_proxy_of_the_environment_is_used(signed, https, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert searched(https, authority=signed[0]) == []
