"""Orthanc, a real PACS (Debian's package), on loopback in its own folder; and studies for it."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    PROGRAM is None or not DICOMWEB.exists(),
    reason="no Orthanc here; on Debian: apt-get install orthanc orthanc-dicomweb",
)
START_SECONDS = 60
USER, PASSWORD = "reader", "only-for-tests"


class Orthanc:
    """A running PACS."""

    def __init__(self, folder: Path, http: int, dicom: int, store: int) -> None:
        self.folder, self.http, self.dicom = folder, http, dicom
        self.store = store
        """The port that it sends to under the AE title HICA."""

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def node(self) -> str:
        return f"dicom://ORTHANC@127.0.0.1:{self.dicom}"

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.http}",
            auth=(USER, PASSWORD),
            trust_env=False,
            timeout=START_SECONDS,
        )

    def add(self, files: Iterator[bytes]) -> None:
        with self.client() as client:
            for file in files:
                client.post("/instances", content=file).raise_for_status()

    def instances(self) -> int:
        """How many it counts itself."""
        with self.client() as client:
            return client.get("/statistics").json()["CountInstances"]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Start it, wait until it answers, end it."""
    http, dicom, store = free_ports(3)
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {
            "hica": ["HICA", "127.0.0.1", store],
            "lost": ["LOST", "127.0.0.1", 1],
        },
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": False,
        "SaveJobs": False,
        "Plugins": [str(DICOMWEB)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            orthanc = Orthanc(folder, http, dicom, store)
            _wait(orthanc, process)
            yield orthanc
        finally:
            process.terminate()
            process.wait(60)


def _wait(orthanc: Orthanc, process: subprocess.Popen) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError), orthanc.client() as client:
            if client.get("/system").is_success:
                return
        assert process.poll() is None, (orthanc.folder / "log").read_text()
        assert time.monotonic() < end, "Orthanc does not start"
        time.sleep(0.1)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listened at a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def study(number: int, series: int = 1, instances: int = 1, modality: str = "US") -> list[bytes]:
    """The files of a small study; its UIDs follow from its number."""
    return [
        image(f"1.2.826.0.1.3680043.8.498.{number}", s, i, number, modality)
        for s in range(series)
        for i in range(instances)
    ]


def image(study_uid: str, series: int, instance: int, number: int, modality: str) -> bytes:
    """A DICOM file of 8×8 pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UltrasoundImageStorage
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = f"{study_uid}.{series}"
    dataset.SOPInstanceUID = f"{study_uid}.{series}.{instance}"
    dataset.PatientID = f"PAT{number:06d}"
    dataset.PatientName = "Doe^Jane"
    dataset.AccessionNumber = f"ACC{number:06d}"
    dataset.StudyDate = f"2024{number % 12 + 1:02d}{number % 28 + 1:02d}"
    dataset.StudyTime = "120000"
    dataset.StudyID = str(number)
    dataset.StudyDescription = "US breast" if number % 2 else "US thyroid"
    dataset.Modality = modality
    dataset.SeriesNumber, dataset.InstanceNumber = series, instance
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
    dataset.PixelData = pixels.tobytes()
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
