import logging
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from hica.deployment.keys import generate, public_path
from hica_server import admission
from hica_server.admission import Admission, RefusedError
from hica_server.enrolment import enroll, revoke
from hica_server.settings import Folder

NOW = 1_900_000_000.0
P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""n of NIST P-384 (FIPS 186-4, D.1.2.4)."""


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    return clock


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "study")


@pytest.fixture
def gate(folder, clock) -> Admission:
    """Started an hour ago."""
    clock.now -= 3600
    made = Admission(folder)
    clock.now += 3600
    return made


@pytest.fixture
def node(enrol):
    return enrol("H1")


def refusal(gate: Admission, headers) -> tuple[int, str]:
    pairs = headers.items() if isinstance(headers, dict) else headers
    with pytest.raises(RefusedError) as error:
        gate.admit(pairs)
    return error.value.status, error.value.reason


def test_who_signed_is_admitted_by_name(gate, enrol):
    for node in (enrol("H1"), enrol("H2")):
        assert gate.admit(node.headers(NOW).items()) == node.name


def test_flowers_own_signature_is_admitted(folder, enrol):
    import httpx
    from flwr.supercore.protobuf.client import ProtobufRequestContext
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    gate, node = Admission(folder), enrol("H1")
    for _ in range(2):  # a retry goes the same way
        request = httpx.Request("POST", "https://h/v1/fleet/pull-messages")
        context = ProtobufRequestContext("", None, request)
        interceptor = NodeAuthHttpInterceptor(node.private, node.private.public_key())
        interceptor.intercept(context, lambda _: None)
        assert gate.admit(request.headers.raw) == "H1"


def test_names_and_times_are_flowers():
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant

    assert admission.TIMESTAMP.decode() == TIMESTAMP_HEADER
    assert admission.PUBLIC_KEY.decode() == constant.FLEET_HTTP_PUBLIC_KEY_HEADER
    assert admission.SIGNATURE.decode() == constant.FLEET_HTTP_SIGNATURE_HEADER
    assert admission.NEWEST == constant.MIN_TIMESTAMP_DIFF_SECONDS
    assert admission.OLDEST == constant.MAX_TIMESTAMP_DIFF_SECONDS


@pytest.mark.parametrize("name", [b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"])
def test_each_header_is_needed_once(gate, node, name):
    headers = node.headers(NOW)
    twice = [*headers.items(), (name, headers[name])]
    assert refusal(gate, twice) == (401, f"header {name.decode()} twice")
    del headers[name]
    assert refusal(gate, headers) == (401, f"header {name.decode()} missing")


@pytest.mark.parametrize("name", [b"flwr-public-key", b"flwr-signature"])
@pytest.mark.parametrize("value", [b"%%%", b"AA=A", b"A", b"AAA\xff", b" AAAA"])
def test_what_is_not_base64_is_refused(gate, node, name, value):
    headers = node.headers(NOW) | {name: value}
    assert refusal(gate, headers) == (401, f"header {name.decode()}: not base64")


@pytest.mark.parametrize("value", [b"", b"now", b"2030-01-01T00:00:00\xff", b"99999-01-01", b"1e9"])
def test_what_is_not_a_time_is_refused(gate, node, value):
    headers = node.headers(NOW) | {b"flwr-timestamp": value}
    assert refusal(gate, headers) == (401, "header flwr-timestamp: not a time")


def test_a_time_without_zone_is_refused(gate, node):
    headers = node.headers(NOW) | {b"flwr-timestamp": b"2030-01-01T00:00:00"}
    assert refusal(gate, headers) == (401, "header flwr-timestamp: without time zone")


@pytest.mark.parametrize("age", [-4.9, 0, 304.9])
def test_a_fresh_signature_passes(gate, node, age):
    assert gate.admit(node.headers(NOW - age).items()) == "H1"


@pytest.mark.parametrize(("age", "said"), [(-5.1, "+5"), (305.1, "-305"), (-600, "+600")])
def test_a_stale_signature_says_how_far_the_clock_is_off(gate, node, age, said):
    headers = node.headers(NOW - age)
    assert refusal(gate, headers) == (401, f"H1: its clock is {said} s off the server's")


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_times_at_the_ends_of_the_calendar_are_stale(gate, node, year):
    for zone in ("+23:59", "-23:59"):
        moment = f"{year}-{'01-01' if year == '0001' else '12-31'}T00:00:00{zone}".encode()
        status, said = refusal(gate, node.headers(NOW) | {b"flwr-timestamp": moment})
        assert (status, said[:12]) == (401, "H1: its cloc")


def test_a_time_that_was_not_signed_is_refused(gate, node):
    headers = node.headers(NOW - 600) | {
        b"flwr-timestamp": datetime.fromtimestamp(NOW, UTC).isoformat().encode()
    }
    assert refusal(gate, headers) == (401, "H1: wrong signature")


def test_the_same_time_written_otherwise_is_another_text(gate, node):
    moment = datetime.fromtimestamp(NOW, timezone(timedelta(hours=2)))
    headers = node.headers(NOW) | {b"flwr-timestamp": moment.isoformat().encode()}
    assert refusal(gate, headers) == (401, "H1: wrong signature")


@pytest.mark.parametrize("signature", [b"", b"0", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"0" * 5000])
def test_what_is_no_signature_is_refused(gate, node, signature):
    headers = node.headers(NOW) | {b"flwr-signature": b64encode(signature)}
    assert refusal(gate, headers) == (401, "H1: wrong signature")


def test_one_site_cannot_sign_for_another(gate, enrol):
    ours, theirs = enrol("H1").headers(NOW), enrol("H2").headers(NOW)
    mixed = ours | {b"flwr-public-key": theirs[b"flwr-public-key"]}
    assert refusal(gate, mixed) == (401, "H2: wrong signature")


def test_a_stranger_is_refused(gate, node, enrol, tmp_path):
    stranger = type(node)(Folder(tmp_path / "elsewhere"), "H1")
    assert refusal(gate, stranger.headers(NOW)) == (401, "not the key of an enrolled site")


def test_before_anybody_is_enrolled_all_are_strangers(gate, node, folder):
    folder.sites.unlink()
    assert refusal(gate, node.headers(NOW)) == (401, "not the key of an enrolled site")


def test_enrolling_and_revoking_take_effect_at_once(gate, node, folder, enrol):
    assert gate.admit(node.headers(NOW).items()) == "H1"
    later = enrol("H2")
    assert gate.admit(later.headers(NOW).items()) == "H2"
    revoke(folder, "H1")
    assert refusal(gate, node.headers(NOW)) == (401, "not the key of an enrolled site")
    assert gate.admit(later.headers(NOW).items()) == "H2"


def test_a_site_with_a_new_key_has_only_that(gate, node, folder, tmp_path):
    revoke(folder, "H1")
    generate(tmp_path / "new")
    enroll(folder, "H1", public_path(tmp_path / "new"))
    assert refusal(gate, node.headers(NOW)) == (401, "not the key of an enrolled site")


def test_until_the_superlink_knows_the_sites_they_are_asked_to_wait(folder, clock, node, enrol):
    known = []
    clock.now -= 3600
    gate = Admission(folder, ready=lambda: bool(known))
    clock.now += 3600
    headers = node.headers(NOW)
    assert refusal(gate, headers) == (503, "H1: the server is starting")
    known.append("all")
    assert gate.admit(headers.items()) == "H1"


def test_while_the_file_cannot_be_read_sites_are_asked_to_wait(gate, node, folder, caplog):
    whole = folder.sites.read_bytes()
    folder.sites.write_bytes(whole[:-5])
    headers = node.headers(NOW)
    assert refusal(gate, headers) == (503, "the enrolled sites cannot be read")
    assert str(folder.sites) in caplog.text
    folder.sites.write_bytes(whole)
    assert gate.admit(headers.items()) == "H1"


def test_the_file_is_read_only_when_it_has_changed(gate, node, monkeypatch):
    gate.admit(node.headers(NOW).items())
    monkeypatch.setattr(admission, "let_in", None)
    assert gate.admit(node.headers(NOW).items()) == "H1"


# --- Replays -------------------------------------------------------------------------------------


def test_a_signature_passes_once(gate, node, enrol):
    headers = node.headers(NOW)
    gate.admit(headers.items())
    gate.admit(enrol("H2").headers(NOW).items())
    assert refusal(gate, headers) == (401, "H1: the signature was used before")


def test_until_it_is_too_old_to_pass_anyway(gate, node, clock):
    headers = node.headers(NOW + 4)
    gate.admit(headers.items())
    answers = set()
    for _ in range(320):
        clock.now += 1
        answers.add(refusal(gate, headers))
    assert answers == {(401, "H1: the signature was used before")} | {
        (401, f"H1: its clock is -{age} s off the server's") for age in range(305, 317)
    }


def test_the_twin_of_a_signature_is_a_replay(gate, node):
    headers = node.headers(NOW)
    r, s = decode_dss_signature(b64decode(headers[b"flwr-signature"]))
    twin = encode_dss_signature(r, P384_ORDER - s)
    key = node.private.public_key()
    key.verify(twin, headers[b"flwr-timestamp"], ec.ECDSA(hashes.SHA256()))  # is a good one
    gate.admit(headers.items())
    replay = headers | {b"flwr-signature": b64encode(twin)}
    assert refusal(gate, replay) == (401, "H1: the signature was used before")


def test_another_spelling_of_a_signature_is_a_replay(gate, node):
    headers = node.headers(NOW)
    while not headers[b"flwr-signature"].endswith(b"="):
        headers = node.headers(NOW)
    text = headers[b"flwr-signature"].rstrip(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) + 1 :][:1]
    spelling = other + b"=" * (-len(other) % 4)
    assert b64decode(spelling, validate=True) == b64decode(headers[b"flwr-signature"])
    gate.admit(headers.items())
    replay = headers | {b"flwr-signature": spelling}
    assert refusal(gate, replay) == (401, "H1: the signature was used before")


def test_after_a_restart_what_may_have_passed_before_has_to_be_signed_anew(folder, clock, node):
    before = node.headers(NOW - 1)
    restarted = Admission(folder)
    assert refusal(restarted, before) == (503, "H1: signed before the gateway was started")
    clock.now += 1
    assert restarted.admit(node.headers(NOW + 0.5).items()) == "H1"


def test_a_refused_request_uses_no_memory_up(gate, node, monkeypatch):
    monkeypatch.setattr(admission, "MEMORY", 1)
    for _ in range(3):
        refusal(gate, node.headers(NOW) | {b"flwr-signature": b64encode(b"0")})
    assert gate.admit(node.headers(NOW).items()) == "H1"


def test_memory_is_bounded_and_nothing_in_it_is_forgotten_early(gate, node, monkeypatch, clock):
    monkeypatch.setattr(admission, "MEMORY", 2)
    seen = [node.headers(NOW) for _ in range(2)]
    for headers in seen:
        gate.admit(headers.items())
    assert refusal(gate, node.headers(NOW)) == (503, "H1: too many requests")
    for headers in seen:
        assert refusal(gate, headers) == (401, "H1: the signature was used before")
    clock.now += 310
    assert gate.admit(node.headers(clock.now).items()) == "H1"


def test_nothing_is_logged_of_good_requests(gate, node, caplog):
    with caplog.at_level(logging.DEBUG):
        gate.admit(node.headers(NOW).items())
    assert caplog.text == ""
