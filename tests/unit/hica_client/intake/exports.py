"""Exports as archives make them: small DICOM objects with whatever tags a test asks for."""

import zlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
US = "1.2.840.10008.5.1.4.1.1.6.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
SCREENSHOT = "1.2.840.10008.5.1.4.1.1.7"
TEXT_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


def blob(seed: int, side: int = 24) -> np.ndarray:
    """Grey levels uint8 [side, side] that no other seed has: a few smooth waves."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = sum(np.cos(np.pi * (a * x + b * y) + p) for a, b, p in draws.uniform(-8, 8, (6, 3)))
    return ((waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8)


def write_dicom(path: Path, pixels: np.ndarray | None, **tags: object) -> Path:
    """Write an object: an ultrasound of one frame unless `tags` say otherwise."""
    tags = {
        "SOPClassUID": US,
        "Modality": "US",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SOPInstanceUID": f"1.2.3.4.{zlib.crc32(path.as_posix().encode())}",
        **tags,
    }
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = tags["SOPClassUID"]
    data.file_meta.MediaStorageSOPInstanceUID = tags["SOPInstanceUID"]
    for name, value in tags.items():
        if value is not None:
            setattr(data, name, value)
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape[:2]
        data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
        data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
        data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
        if pixels.ndim == 3:
            data.PlanarConfiguration = 0
        data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def content(kind: str, concept: list[Dataset], **tags: object) -> Dataset:
    """An item of a structured report."""
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", kind
    item.ConceptNameCodeSequence = concept
    for name, value in tags.items():
        setattr(item, name, value)
    return item


FINDING = code("121071", "DCM", "Finding")
OBSERVER = code("121008", "DCM", "Person Observer Name")
SUBJECT = code("121030", "DCM", "Subject ID")


def finding(text: str) -> Dataset:
    return content("TEXT", FINDING, TextValue=text)
