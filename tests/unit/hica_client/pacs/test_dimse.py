"""DIMSE in this process: C-FIND, C-GET and C-MOVE, and what is said where they fail."""

import contextlib
import threading

import pytest
from pynetdicom import _config
from tests.unit.hica_client.pacs.fake_node import FakeNode, dimse, other_listener, store_to
from tests.unit.hica_client.pacs.files import ROOT, dataset

from hica.deployment.supervision import free_port
from hica.errors import ConfigurationError
from hica_client.pacs.address import Node, Own
from hica_client.pacs.dimse import FIND, GET, MOVE, Dimse
from hica_client.pacs.errors import PacsError
from hica_client.pacs.pulling import missing_error, pull
from hica_client.pacs.selection import Selection
from hica_client.pacs.summary import Summary
from hica_client.site import PacsSection

ALL = Selection(modalities=("US",))


@pytest.fixture
def node():
    return FakeNode()


def pulled(node, store, way="c-get", selection=ALL, **settings):
    """A pull from a node that runs meanwhile."""
    own_port = free_port() if way == "c-move" else None
    if own_port is not None and not node.misled:
        node.destination = ("127.0.0.1", own_port)
    found = Summary()
    with node.running() as port, dimse(port, own_port=own_port, **settings) as archive:
        pull(archive, selection, store, found)
    return found


def refusal(node, store, way="c-get", **settings):
    with pytest.raises(PacsError) as raised:
        pulled(node, store, way, **settings)
    assert ROOT not in str(raised.value) and "PAT" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_all_comes_streamed_to_disk_and_a_second_pull_moves_nothing(node, store, way):
    found = pulled(node, store, way)
    assert (found.studies, found.whole, found.missing.total()) == (2, 4, 0)
    assert node.levels == ["SERIES", "SERIES"]
    assert _config.STORE_RECV_CHUNKED_DATASET is False, "put back"
    node.levels.clear()
    assert pulled(node, store, way).held == 4
    assert node.levels == []
    assert not list((store.folder / ".pull" / "parts").iterdir())


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_of_a_series_begun_before_only_the_rest_is_moved(node, store, way):
    pulled(node, store, way)
    store.path(f"{ROOT}.1.1.2").unlink()
    node.levels.clear()
    found = pulled(node, store, way)
    assert (found.held, found.fetched) == (3, 4 + 1)  # the store counts since it was opened
    assert node.levels == ["IMAGE"]


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_what_was_cut_on_disk_is_moved_again(node, store, way):
    pulled(node, store, way)
    path = store.path(f"{ROOT}.1.1.2")
    path.write_bytes(path.read_bytes()[:-3])
    assert pulled(node, store, way).held == 3
    assert store.holds(f"{ROOT}.1.1.2", f"{ROOT}.1")


def test_a_pacs_that_breaks_off_once_is_asked_again(node, store):
    find, broken = node.find, []

    def once(event):
        if event.identifier.QueryRetrieveLevel != "STUDY" and len(broken) < 2:
            broken.append(event.assoc.abort())
            return
        yield from find(event)

    node.find = once
    assert pulled(node, store).whole == 4
    assert len(broken) == 2


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_what_nobody_asked_for_is_refused(node, store, way):
    node.more = [dataset(9)]
    found = pulled(node, store, way)
    assert found.whole == 4
    assert not store.path(f"{ROOT}.9.1.1").exists()
    assert "instances were sent that nobody asked for" in " ".join(found.notes())


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_an_image_of_another_study_is_not_taken(node, store, way):
    node.datasets = [dataset(1)]
    node.found = lambda asked: (
        [dataset(1)]
        if asked.QueryRetrieveLevel != "SERIES" or "Modality" in asked
        else [dataset(1, StudyInstanceUID=f"{ROOT}.2")]
    )
    found = pulled(node, store, way)
    assert found.asked_again == 1 and found.missing.total() == 0


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_an_image_larger_than_the_limit_is_cut_off(node, store, way):
    node.datasets = [dataset(1), dataset(2, Rows=2048, Columns=2048, PixelData=bytes(1 << 22))]
    store.max_instance_bytes = 1 << 16
    found = pulled(node, store, way, max_instance_bytes=1 << 16)
    assert (found.whole, found.missing.total()) == (1, 1)
    assert "are larger than max_instance_bytes" in str(missing_error(found))


def test_the_unknown_title_of_this_site_is_said(node, store):
    node.known = ["OTHER"]
    assert "does not know the AE title 'HICA' of this site" in refusal(node, store)


def test_the_wrong_title_of_the_pacs_is_said(node, store):
    assert "is not the AE title 'ELSE'" in refusal(node, store, title="ELSE")


def test_an_unknown_destination_says_what_to_register(node, store):
    node.move = lambda _event: iter([(None, None)])
    said = refusal(node, store, "c-move")
    assert "move destination unknown: have its administrator add the AE title 'HICA'" in said


@pytest.mark.parametrize(
    ("way", "offers", "words"),
    [
        ("c-get", [GET], "does not offer searches for studies (C-FIND"),
        ("c-get", [FIND, MOVE], "does not offer to send studies back on the same connection"),
        ("c-move", [FIND, GET], "does not offer to send studies to this site (C-MOVE)"),
    ],
)
def test_what_a_pacs_does_not_offer_is_said(node, store, way, offers, words):
    node.offers = offers
    assert words in refusal(node, store, way)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA700, "has not the means for this search (status 0xA700)"),
        (0x0124, "does not allow this site to search"),
        (0xC001, "does not take the search (status 0xC001)"),
    ],
)
def test_a_search_that_is_refused_has_its_sentence(node, store, status, words):
    node.find_status = status
    assert words in refusal(node, store)


def test_a_search_without_an_answer_is_given_up(node, store):
    over = threading.Event()
    node.find = lambda _event: iter([(0x0000, None)] if over.wait(60) else [])
    try:
        assert "broke off or did not answer in time" in refusal(node, store, timeout=0.3)
    finally:
        over.set()


def test_a_search_that_breaks_off_has_its_sentence(node, store):
    node.deaf = True
    assert "broke off or did not answer in time" in refusal(node, store)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA702, "which lacks the means at the moment"),
        (0xC123, "could not be sent by the PACS (status 0xC123)"),
    ],
)
@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_images_that_are_not_sent_are_counted_by_reason(node, store, way, status, words):
    node.get_status = node.move_status = status
    found = pulled(node, store, way)
    assert found.missing.total() == 4
    assert words in str(missing_error(found))


def test_images_that_vanished_are_counted(node, store):
    node.vanished = True
    assert "are gone now" in str(missing_error(pulled(node, store)))


def test_a_sender_under_another_title_is_turned_away_and_named(node, store):
    node.sends_as = "ARCHIVE"
    said = refusal(node, store, "c-move")
    assert "it sends as the AE title 'ARCHIVE', which is turned away; set sender" in said


def test_the_sender_that_is_set_is_let_in(node, store):
    node.sends_as = "ARCHIVE"
    assert pulled(node, store, "c-move", sender="ARCHIVE").whole == 4


def test_where_nobody_connects_address_and_firewall_are_named(node, store):
    with other_listener() as port:
        node.destination, node.misled = ("127.0.0.1", port), True
        found = pulled(node, store, "c-move")
    assert "no connection came to 127.0.0.1:" in str(missing_error(found))


def test_the_listener_lets_in_two_titles_only_and_is_gone_afterwards(node, store):
    own_port = free_port()
    node.destination = ("127.0.0.1", own_port)
    with node.running() as port, dimse(port, own_port=own_port) as archive:
        pull(archive, ALL, store, Summary())
        assert store_to(own_port, "PACS", dataset(1), own="ELSE") is None
        assert store_to(own_port, "OTHER", dataset(1)) is None
        assert store_to(own_port, "PACS", dataset(9)) == 0x0124, "not asked for"
        assert set(store.folder.rglob("*.dcm")) == {
            store.path(f"{ROOT}.{study}.1.{i}") for study in (1, 2) for i in (1, 2)
        }
    assert store_to(own_port, "PACS", dataset(1)) is None


def test_a_port_that_is_taken_is_said(node, store):
    with node.running() as port, pytest.raises(ConfigurationError, match="cannot listen at"):
        node.destination = ("127.0.0.1", port)
        with dimse(port, own_port=port) as archive:
            pull(archive, ALL, store, Summary())


def test_nothing_that_listens_is_said(store):
    with pytest.raises(PacsError, match="nothing listens there"), dimse(free_port()) as archive:
        pull(archive, ALL, store, Summary())


def test_a_listener_that_the_pacs_cannot_reach_is_refused_before_anything():
    node = Node("PACS", "pacs.hospital", 104)
    with pytest.raises(ConfigurationError, match="is this machine alone"):
        Dimse(node, Own("HICA", port=11112), PacsSection())


def test_tls_without_a_certificate_for_c_move_is_refused_before_anything():
    node = Node("PACS", "127.0.0.1", 2762, encrypted=True)
    with pytest.raises(ConfigurationError, match="needs a certificate of this site"):
        Dimse(node, Own("HICA", port=11112), PacsSection())


def test_searches_that_follow_each_other_at_once_lose_no_answer(node):
    with node.running() as port, dimse(port) as archive:
        for _ in range(150):
            assert len(list(archive.series(f"{ROOT}.1"))) == 1


def test_a_search_that_nobody_reads_to_its_end_is_ended(node):
    with node.running() as port, dimse(port) as archive:
        with contextlib.closing(archive.studies(next(ALL.queries()))) as results:
            next(results)
        assert len(list(archive.instances(f"{ROOT}.1", f"{ROOT}.1.1"))) == 2
