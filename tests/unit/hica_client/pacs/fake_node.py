"""A DICOM node in this process, on loopback: C-FIND, C-GET and C-MOVE of data sets in memory."""

import contextlib

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, build_context, evt
from tests.unit.hica_client.pacs.files import dataset

from hica_client.pacs.address import Node, Own
from hica_client.pacs.dimse import FIND, GET, MOVE, Dimse
from hica_client.site import PacsSection

LEVELS = {
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


class FakeNode:
    """Settings of its answers are plain attributes, to be changed by a test."""

    def __init__(self) -> None:
        self.datasets = [dataset(study, 1, i) for study in (1, 2) for i in (1, 2)]
        self.find_status = self.move_status = self.get_status = None
        """A status to end with in place of an answer."""
        self.destination: tuple[str, int] | None = None
        self.sends_as = "PACS"
        self.more: list[Dataset] = []
        """Sent beside what was asked for."""
        self.levels: list[str] = []
        """Of requests for images."""
        self.offers = [FIND, GET, MOVE]
        self.known = ["HICA"]
        self.deaf = False
        """Answers no search."""
        self.misled = False
        """Sends to another than asks."""
        self.vanished = False
        """What it finds is gone when it is to be sent."""

    def found(self, asked: Dataset) -> list[Dataset]:
        def fits(each):
            return all(
                str(each[keyword].value) in _values(asked, keyword)
                for keyword in LEVELS.values()
                if _values(asked, keyword)
            )

        return [each for each in self.datasets if fits(each)]

    def find(self, event):
        asked = event.identifier
        if self.deaf:
            event.assoc.abort()
            return
        if self.find_status is not None:
            yield self.find_status, None
            return
        level = LEVELS[asked.QueryRetrieveLevel]
        for each in {str(each[level].value): each for each in self.found(asked)}.values():
            answer = Dataset()
            answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
            for element in asked:
                if element.keyword == "ModalitiesInStudy":
                    answer.ModalitiesInStudy = each.Modality
                elif element.keyword in each:
                    answer[element.keyword] = each[element.keyword]
            yield 0xFF00, answer

    def get(self, event):
        yield from self._send(event, self.get_status)

    def move(self, event):
        if self.destination is None:
            yield None, None
            return
        yield (*self.destination, {"contexts": [STORAGE]})
        yield from self._send(event, self.move_status)

    def _send(self, event, status):
        self.levels.append(event.identifier.QueryRetrieveLevel)
        there = [] if self.vanished else self.found(event.identifier)
        instances = [] if status is not None else [*self.more, *there]
        yield len(instances) or (status is not None)
        if status is not None:
            yield status, None
        for each in instances:
            yield 0xFF00, each

    @contextlib.contextmanager
    def running(self, port=0, context=None):
        node = AE("PACS")
        node.require_called_aet = True
        node.require_calling_aet = self.known
        for each in self.offers:
            node.add_supported_context(each, ExplicitVRLittleEndian)
        node.add_supported_context(
            SecondaryCaptureImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True
        )
        node.ae_title = "PACS"
        handlers = [
            (evt.EVT_C_FIND, self.find),
            (evt.EVT_C_GET, self.get),
            (evt.EVT_C_MOVE, self.move),
        ]
        server = node.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=context
        )
        node.ae_title = self.sends_as  # of the associations that it opens itself
        try:
            yield server.server_address[1]
        finally:
            node.shutdown()


STORAGE = build_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)


def _values(asked: Dataset, keyword: str) -> list[str]:
    value = asked.get(keyword)
    if not value:
        return []
    return [value] if isinstance(value, str) else [str(each) for each in value]


def dimse(port, own="HICA", own_port=None, title="PACS", **settings) -> Dimse:
    section = PacsSection(**{"timeout": 5.0, "patience": 5.0} | settings)
    return Dimse(
        Node(title, "127.0.0.1", port),
        Own(own, "127.0.0.1", own_port),
        section,
        pause=lambda _: None,
    )


@contextlib.contextmanager
def other_listener():
    """One of the same AE title elsewhere, which keeps nothing; its port."""
    node = AE("HICA")
    node.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    handlers = [(evt.EVT_C_STORE, lambda _: 0xC000)]
    server = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        node.shutdown()


def store_to(port, title, instance, own="HICA"):
    """Send an instance to a listener, uninvited; the status of its answer, None: turned away."""
    sender = AE(title)
    association = sender.associate("127.0.0.1", port, contexts=[STORAGE], ae_title=own)
    if not association.is_established:
        return None
    with contextlib.suppress(RuntimeError):
        status = association.send_c_store(instance).get("Status")
        association.release()
        return status
