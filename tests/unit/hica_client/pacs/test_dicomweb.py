"""DICOMweb: what is asked, what is taken of the answers, and what is said of those that fail."""

import socket
import ssl
import tracemalloc

import httpx
import pytest
from tests.unit.hica_client.pacs.conftest import answered, attributes, part_of
from tests.unit.hica_client.pacs.files import ROOT, dataset, file_of

from hica_client.pacs.connection import PASSWORD
from hica_client.pacs.errors import PacsError
from hica_client.pacs.pulling import count, missing_error, pull
from hica_client.pacs.selection import Selection
from hica_client.pacs.summary import Summary

US = Selection(modalities=("US",))
FIRST = f"/studies/{ROOT}.1/series/{ROOT}.1.1/instances/{ROOT}.1.1.1"
ANY_INSTANCE = r".*/instances/[0-9.]+"


def pulled(web, store, selection=US, **settings):
    found = Summary()
    with web.client(**settings) as archive:
        pull(archive, selection, store, found)
    return found


def refusal(web, store, **settings):
    with pytest.raises(PacsError) as raised:
        pulled(web, store, **settings)
    assert ROOT not in str(raised.value) and "PAT" not in str(raised.value)
    return str(raised.value)


def test_all_comes_and_a_second_pull_asks_for_no_image(web, store):
    found = pulled(web, store)
    assert (found.whole, found.fetched, found.missing.total()) == (6, 6, 0)
    assert len(list(store.folder.glob("??/*.dcm"))) == 6
    web.asked.clear()
    again = pulled(web, store)
    assert again.held == 6
    assert not [r for r in web.asked if "/instances/" in r.url.path]


def test_what_was_cut_on_disk_is_fetched_again(web, store):
    pulled(web, store)
    path = store.path(f"{ROOT}.1.1.1")
    path.write_bytes(path.read_bytes()[:-3])
    assert pulled(web, store).held == 5
    assert path.read_bytes() == file_of(dataset(1, 1, 1))


def test_a_count_moves_nothing(web, store):
    found = Summary()
    with web.client() as archive:
        count(archive, US, found)
    assert (found.studies, found.series["US"], found.instances["US"]) == (3, 3, 6)
    assert not list(store.folder.glob("??/*.dcm"))


def test_nothing_is_asked_but_get_below_the_address_and_nothing_is_followed(web, store):
    web.faults["/studies"] = httpx.Response(302, headers={"location": "http://elsewhere/studies"})
    assert "sends on to another address" in refusal(web, store)
    assert {(r.method, r.url.host) for r in web.asked} == {("GET", "127.0.0.1")}


def test_pages_are_asked_for_until_one_is_empty(web, store, monkeypatch):
    monkeypatch.setattr("hica_client.pacs.dicomweb.FEW", 1)
    web.page = 2
    assert pulled(web, store).studies == 3


def test_a_short_list_takes_one_request(web, store):
    pulled(web, store)
    assert len([r for r in web.asked if r.url.path.endswith("/series")]) == 3


def test_an_archive_that_gives_fewer_than_asked_for_is_asked_on(web, store):
    web.datasets = [dataset(1, 1, instance) for instance in range(35)]
    web.page = 15
    assert pulled(web, store).whole == 35


def test_paging_that_does_not_work_is_said(web, store, monkeypatch):
    monkeypatch.setattr("hica_client.pacs.dicomweb.PAGE", 2)
    monkeypatch.setattr("hica_client.pacs.dicomweb.FEW", 1)
    web.pages = False
    assert "its paging does not work" in refusal(web, store)


def test_a_service_that_gives_all_at_once_is_taken_as_it_is(web, store, monkeypatch):
    monkeypatch.setattr("hica_client.pacs.dicomweb.FEW", 1)
    web.pages = False
    assert pulled(web, store).whole == 6


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(401), "asks for user and password; set user and password_file"),
        (httpx.Response(403), "this user may not search or fetch there"),
        (httpx.Response(404), "no DICOMweb service at this address"),
        (httpx.Response(400), "does not take the search"),
        (httpx.Response(500), "reports an error of its own"),
        (httpx.Response(503), "is busy or restarts (HTTP status 503)"),
        (
            httpx.Response(200, content="<html>", headers={"content-type": "text/html"}),
            "answers a web page in place of DICOMweb's JSON",
        ),
        (httpx.Response(200, content='{"no": "list"}'), "answers something in place of"),
    ],
)
def test_an_answer_that_cannot_be_used_has_its_sentence(web, store, answer, words):
    web.faults["/studies"] = answer
    assert words in refusal(web, store)


def caused(by):
    error = httpx.ConnectError("failed")
    error.__cause__ = by
    return error


def certificate(code):
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (caused(socket.gaierror()), "this name is not known here"),
        (caused(ConnectionRefusedError()), "nothing listens there"),
        (caused(certificate(10)), "has run out, or is not valid yet"),
        (caused(certificate(62)), "is for another name"),
        (caused(certificate(18)), "set authority in [pacs]"),
        (caused(ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "answers without TLS"),
        (caused(ssl.SSLError(1, "SSLV3_ALERT_HANDSHAKE")), "it may ask for a certificate"),
        (caused(ssl.SSLEOFError(8, "EOF")), "may not be its TLS port"),
        (caused(OSError(113, "No route to host")), "cannot be reached from this machine"),
        (httpx.ReadTimeout("slow"), "does not answer in time"),
        (httpx.RemoteProtocolError("no HTTP"), "if it is a DICOM port"),
    ],
)
def test_a_connection_that_fails_has_its_sentence(web, store, error, words):
    web.faults["/studies"] = error
    assert words in refusal(web, store)


def test_a_fault_that_passes_is_waited_for_a_bounded_number_of_times(web, store):
    web.faults["/studies"] = [httpx.Response(503), httpx.ReadTimeout("slow")]
    assert pulled(web, store).whole == 6
    assert web.paused == [2.0, 4.0]


def test_user_and_password_are_sent_and_a_refusal_names_them(web, store, monkeypatch, tmp_path):
    (tmp_path / "password").write_text("secret\n")
    settings = {"user": "reader", "password_file": tmp_path / "password"}
    pulled(web, store, **settings)
    assert web.asked[-1].headers["authorization"].startswith("Basic ")
    monkeypatch.setenv(PASSWORD, "token")
    pulled(web, store)
    assert web.asked[-1].headers["authorization"] == "Bearer token"
    web.faults["/studies"] = httpx.Response(401)
    said = refusal(web, store, **settings)
    assert "refuses this user or password" in said
    assert "secret" not in said and "token" not in said


@pytest.mark.parametrize(
    ("answer", "words", "times"),
    [
        (lambda _: httpx.Response(404), "are gone now", 1),
        (lambda _: httpx.Response(403), "may not be fetched by this user", 1),
        (lambda _: httpx.Response(500), "reports an error of its own", 3),
        (lambda _: part_of(file_of(dataset())[:-9]), "came cut short", 3),
        (lambda _: part_of(file_of(dataset()), end=False), "came cut short", 3),
        (lambda _: part_of(file_of(dataset(2))), "came as another image", 3),
        (lambda _: part_of(b"no DICOM"), "no DICOM file", 3),
        (lambda _: httpx.Response(200, content=b"<html>"), "no DICOM file", 3),
        (lambda _: part_of(bytes(2 << 20)), "are larger than max_instance_bytes", 1),
    ],
)
def test_an_image_that_does_not_come_is_counted_and_the_rest_comes(
    web, store, answer, words, times
):
    web.faults[FIRST] = answer
    found = pulled(web, store)
    assert (found.whole, found.missing.total()) == (5, 1)
    assert words in str(missing_error(found))
    assert "1 of 6 instances are missing" in str(missing_error(found))
    assert ROOT not in str(missing_error(found))
    asked = [r for r in web.asked if r.url.path.endswith(FIRST)]
    assert len(asked) == times
    assert not list((store.folder / ".pull" / "parts").iterdir())


def test_what_comes_at_the_second_time_is_not_missing(web, store):
    web.faults[FIRST] = [httpx.Response(500)]
    found = pulled(web, store)
    assert (found.whole, found.missing.total(), found.asked_again) == (6, 0, 1)


def test_where_nothing_comes_the_pull_ends(web, store):
    web.datasets = [dataset(study) for study in range(1, 30)]
    web.faults[ANY_INSTANCE] = lambda _: httpx.Response(500)
    assert "nothing of the last 20 series came" in refusal(web, store)


def test_in_a_series_that_does_not_come_asking_ends(web, store):
    web.datasets = [dataset(1, 1, instance) for instance in range(100)]
    web.faults[ANY_INSTANCE] = lambda _: httpx.Response(500)
    assert pulled(web, store).missing.total() == 100
    assert len([r for r in web.asked if "/instances/" in r.url.path]) == 100 + 2 * 20


def test_a_service_without_the_star_is_asked_for_its_own_encoding(web, store):
    def choosy(request):
        return httpx.Response(406) if "transfer-syntax" in request.headers["accept"] else None

    web.faults[ANY_INSTANCE] = choosy
    assert pulled(web, store).whole == 6


def test_a_file_that_comes_bare_is_taken(web, store):
    headers = {"content-type": "application/dicom"}
    web.faults[FIRST] = httpx.Response(200, content=file_of(dataset()), headers=headers)
    assert pulled(web, store).whole == 6


def test_a_study_that_is_gone_is_noted(web, store):
    web.faults[f"/studies/{ROOT}.2/series"] = httpx.Response(404)
    found = pulled(web, store)
    assert (found.studies, found.whole) == (2, 4)
    assert "1 studies were found and have no series any more" in found.notes()[0]


def test_studies_that_were_not_asked_for_are_left_alone(web, store):
    web.datasets[0].Modality = web.datasets[1].Modality = "CT"
    found = pulled(web, store)
    assert (found.studies, found.unlike) == (2, 1)


def test_repeats_are_one_file_and_noted(web, store):
    def twice(request):
        offset = request.url.params["offset"]
        same = [attributes(dataset(1, 1, 1))] * 2
        return answered(same if offset == "0" else [])

    web.faults[f"/studies/{ROOT}.1/series/{ROOT}.1.1/instances"] = twice
    found = pulled(web, store)
    assert (found.repeated, found.whole) == (1, 5)
    assert found.instances.total() == found.whole


def test_entries_without_a_uid_are_noted_and_lead_nowhere(web, store):
    bad = [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in ("../../x", "..", "1?y=2", "")]
    web.faults["/studies"] = [answered(bad)]
    found = pulled(web, store)
    assert found.unnamed == 4
    assert {r.url.path for r in web.asked} == {"/dicom-web/studies"}


def test_what_a_pacs_counts_but_does_not_list_is_noted(web, store):
    def counted(request):
        one = attributes(dataset(1)) | {"00201209": {"vr": "IS", "Value": [5]}}
        return answered([one] if request.url.params["offset"] == "0" else [])

    web.faults[f"/studies/{ROOT}.1/series"] = counted
    assert "3 instances more are counted by the PACS than it lists" in pulled(web, store).notes()[0]


def test_a_list_without_end_is_not_read(web, store, monkeypatch):
    monkeypatch.setattr("hica_client.pacs.dicomweb.MOST_LISTING_BYTES", 100)
    assert "is longer than" in refusal(web, store)


def test_a_large_image_is_not_held_in_memory(web, store):
    pixels = 32 << 20
    store.max_instance_bytes = 2 * pixels
    head = file_of(dataset(Rows=4096, Columns=pixels // 4096, PixelData=b""))
    whole = head[:-12] + b"\xe0\x7f\x10\x00OB\0\0" + pixels.to_bytes(4, "little")

    def body():
        yield b"--xyz\r\n\r\n" + whole
        for _ in range(pixels >> 16):
            yield bytes(1 << 16)
        yield b"\r\n--xyz--"

    kind = 'multipart/related; type="application/dicom"; boundary=xyz'
    web.faults[FIRST] = httpx.Response(200, content=body(), headers={"content-type": kind})
    tracemalloc.start()
    found = pulled(web, store)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.whole, found.missing.total()) == (6, 0)
    assert store.path(f"{ROOT}.1.1.1").stat().st_size > pixels
    assert peak < 8 << 20


def test_descriptions_are_looked_at_here_and_missing_ones_said(web, store):
    web.datasets[0].StudyDescription = web.datasets[1].StudyDescription = ""
    found = pulled(web, store, Selection(modalities=("US",), study_description="*BREAST 3"))
    assert (found.studies, found.whole, found.unlike) == (1, 2, 0)
    assert "1 studies have no description and were left alone" in found.notes()
