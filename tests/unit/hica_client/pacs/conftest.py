"""A folder to receive in, and a fake DICOMweb service."""

import json
import re
from urllib.parse import unquote

import httpx
import pytest
from pynetdicom.transport import ThreadedAssociationServer
from tests.unit.hica_client.pacs.files import dataset, file_of

from hica_client.pacs.address import Web
from hica_client.pacs.dicomweb import DicomWeb
from hica_client.pacs.store import opened
from hica_client.site import PacsSection

MOST = 1 << 20


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "received", MOST) as store:
        yield store


class FakeWeb:
    """Answers QIDO-RS and WADO-RS from data sets in memory; `faults` overrule by path."""

    def __init__(self) -> None:
        self.datasets = [dataset(study, 1, i) for study in (1, 2, 3) for i in (1, 2)]
        self.faults = {}
        """Pattern of a path → an answer, an error to raise, or a list of them to use up."""
        self.asked = []
        self.paused = []
        self.page = 200
        """Results that are given at most, whatever was asked for."""
        self.pages = True

    def client(self, **settings) -> DicomWeb:
        return DicomWeb(
            Web("http://127.0.0.1:8042/dicom-web"),
            PacsSection(**settings),
            transport=httpx.MockTransport(self.answer),
            pause=self.paused.append,
        )

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.path).removeprefix("/dicom-web")
        self.asked.append(request)
        for pattern, fault in self.faults.items():
            if re.fullmatch(pattern, path):
                if isinstance(fault, list):
                    fault = fault.pop(0) if fault else None
                if isinstance(fault, BaseException):
                    raise fault
                if callable(fault):
                    fault = fault(request)
                if fault is not None:
                    return fault
        uids = re.findall(r"/([0-9.]+)(?=/|$)", path)
        keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        found = [
            each
            for each in self.datasets
            if all(str(each[kw].value) == uid for kw, uid in zip(keywords, uids, strict=False))
        ]
        if len(uids) == 3:
            return part_of(file_of(found[0])) if found else httpx.Response(404)
        level = keywords[len(uids)]
        one_each = {str(each[level].value): each for each in found}
        return self.listing(request, [attributes(each) for each in one_each.values()])

    def listing(self, request, items) -> httpx.Response:
        limit, offset = (int(request.url.params[name]) for name in ("limit", "offset"))
        start = offset if self.pages else 0
        return answered(items[start : start + min(limit, self.page)])


def answered(items) -> httpx.Response:
    return httpx.Response(
        200, content=json.dumps(items), headers={"content-type": "application/dicom+json"}
    )


def attributes(of) -> dict:
    """A result in DICOM JSON."""
    tags = {
        "00080018": of.SOPInstanceUID,
        "00080016": of.SOPClassUID,
        "0020000D": of.StudyInstanceUID,
        "0020000E": of.SeriesInstanceUID,
        "00080020": of.StudyDate,
        "00081030": of.StudyDescription,
        "0008103E": of.SeriesDescription,
        "00080061": of.Modality,
        "00080060": of.Modality,
        "00100020": of.PatientID,
        "00080050": of.AccessionNumber,
    }
    return {tag: {"vr": "LO", "Value": [str(value)]} for tag, value in tags.items()}


def part_of(file: bytes, boundary: str = "xyz", end: bool = True) -> httpx.Response:
    """A file as WADO-RS sends it."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode() if end else b""
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return httpx.Response(200, content=head + file + tail, headers={"content-type": kind})


@pytest.fixture
def web():
    return FakeWeb()


@pytest.fixture(autouse=True)
def servers_stop_at_once(monkeypatch):
    """socketserver looks every half second whether it shall stop."""
    serve = ThreadedAssociationServer.serve_forever
    monkeypatch.setattr(ThreadedAssociationServer, "serve_forever", lambda self: serve(self, 0.02))
