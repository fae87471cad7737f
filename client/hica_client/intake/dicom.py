"""What the header of a DICOM object says of whose picture it is and of what it shows."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from hica_client.intake import reasons
from hica_client.intake.encapsulated import MOST_BYTES, document_text
from hica_client.intake.scrub import scrubbed, words_of
from hica_client.intake.structured_report import report_text

NAMES = (
    *("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
    *("PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician"),
    *("ConsultingPhysicianName", "ResponsiblePerson"),
)
NUMBERS = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientBirthDate"),
    *("DeviceSerialNumber", "PatientTelephoneNumbers", "AdmissionID"),
)
TAGS = (
    *NAMES,
    *NUMBERS,
    *("IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    *("SOPClassUID", "Modality", "ImageType", "ConversionType", "PresentationIntentType"),
    *("Rows", "Columns", "NumberOfFrames", "InstanceNumber", "SpecificCharacterSet"),
    *("ImagePositionPatient", "ImageOrientationPatient", "BurnedInAnnotation"),
    *("SequenceOfUltrasoundRegions", "ContentSequence", "DirectoryRecordSequence"),
)
DOCUMENT = ("EncapsulatedDocument", "MIMETypeOfEncapsulatedDocument")
"""Tags that are read of files that are not too large."""
VOLUMES = ("CT", "MR", "PT")
"""Modalities of whose series one slice is taken."""

DOSE_REPORTS = ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.68")
DETECTIONS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (50, 65, 69))
REPORTS = "1.2.840.10008.5.1.4.1.1.88."
DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
SCREENSHOT = "1.2.840.10008.5.1.4.1.1.7"
DIRECTORY = "1.2.840.10008.1.3.10"
OVERLAID = ("SEG", "RTDOSE", "REG", "KO", "PR")
SCOUTS = ("LOCALIZER", "SCOUT", "TOPOGRAM")
SCREENS = ("SCREEN SAVE", "SCREENSHOT", "DOSE", "DOSE_INFO", "PROT", "PATIENT PROTOCOL")
Area = tuple[float, ...]
"""Left, top, right and bottom, as shares of the width and of the height."""


@dataclass(frozen=True)
class Header:
    """What is used of the header of an object; nothing of it is written as it stands."""

    reason: str = ""
    """Why it is no picture to be taken."""
    text: str = ""
    """Of a report, without what names a person."""
    patient: str = ""
    issuer: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    accession: str = ""
    modality: str = ""
    intent: str = ""
    slice_of_volume: bool = False
    position: float | None = None
    """Of a slice along the normal of its plane, in millimetres."""
    number: int = 0
    burned_in: bool = False
    """Whether BurnedInAnnotation says YES."""
    areas: tuple[Area, ...] = ()
    """Those of an ultrasound that show tissue (SequenceOfUltrasoundRegions)."""
    words: frozenset[str] = field(default_factory=frozenset)
    """All words that name a person, an order or a device (`scrub.words_of`)."""
    named_files: tuple[str, ...] = ()
    """Of a DICOMDIR: the files it lists, with slashes."""


def read_header(path: Path) -> Header:
    """Read what is needed of an object's header; whatever is wrong with it is its `reason`."""
    try:
        with quiet():
            tags = [*TAGS, *DOCUMENT] if path.stat().st_size <= MOST_BYTES else [*TAGS]
            data = dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
            return _header(data)
    except Exception:  # a broken file makes pydicom raise almost anything
        return Header(reason=reasons.DAMAGED)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from quoting what stands in a header, in warnings and in its log."""
    log = logging.getLogger("pydicom")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _header(data: Dataset) -> Header:
    kind = str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID") or "")
    if kind == DIRECTORY or "DirectoryRecordSequence" in data:
        return Header(reason=reasons.DIRECTORY, named_files=tuple(_listed(data)))
    names = [str(value) for name in NAMES for value in _values(data, name)]
    words = words_of(names, [str(value) for name in NUMBERS for value in _values(data, name)])
    reason, text = _reason(data, kind), ""
    if not reason and kind.startswith(REPORTS):
        text, people = report_text(data)
        text = scrubbed(text, (words | words_of(people, [])).__contains__)
        reason = "" if text else reasons.NO_TEXT
    elif not reason and kind.startswith(DOCUMENTS):
        text = scrubbed(document_text(data), words.__contains__)
        reason = "" if text else reasons.DOCUMENT
    elif not reason and not (data.get("Rows") and data.get("Columns")):
        reason = reasons.NO_PIXELS if kind else reasons.DAMAGED
    frames = _whole(data, "NumberOfFrames") or 1
    modality = _text(data, "Modality").upper()
    return Header(
        reason=reason,
        text=text,
        patient=_text(data, "PatientID"),
        issuer=_text(data, "IssuerOfPatientID"),
        study=_text(data, "StudyInstanceUID"),
        series=_text(data, "SeriesInstanceUID"),
        instance=_text(data, "SOPInstanceUID"),
        accession=_text(data, "AccessionNumber"),
        modality=modality,
        intent=_text(data, "PresentationIntentType").upper(),
        slice_of_volume=modality in VOLUMES and frames == 1,
        position=_position(data),
        number=_whole(data, "InstanceNumber"),
        burned_in=_text(data, "BurnedInAnnotation").upper() == "YES",
        areas=tuple(_areas(data)),
        words=words,
    )


def _reason(data: Dataset, kind: str) -> str:
    """Why an object is not taken, by what it is."""
    modality = _text(data, "Modality").upper()
    image_type = [str(value).strip().upper() for value in _values(data, "ImageType")]
    secondary = kind == SCREENSHOT or kind.startswith(f"{SCREENSHOT}.")
    if kind in DOSE_REPORTS:
        return reasons.DOSE
    if kind in DETECTIONS:
        return reasons.DETECTION
    if modality in OVERLAID:
        return reasons.SEGMENTATION
    if any(value.startswith(SCOUTS) for value in image_type):
        return reasons.SCOUT
    if any(value in SCREENS for value in image_type):
        return reasons.SCREEN
    screen = modality in ("", "OT") and _text(data, "ConversionType").upper() == "WSD"
    if secondary and (modality in VOLUMES or screen):
        return reasons.SCREEN
    return ""


def _position(data: Dataset) -> float | None:
    """Where a slice lies along the normal of its plane; None where that is not said."""
    try:
        across = np.array(_values(data, "ImageOrientationPatient"), dtype=float)
        place = np.array(_values(data, "ImagePositionPatient"), dtype=float)
        position = float(np.cross(across[:3], across[3:]) @ place)
    except (ValueError, TypeError):
        return None
    return round(position, 3) if np.isfinite(position) else None


def _areas(data: Dataset) -> Iterator[Area]:
    """The areas of an ultrasound; a broken one is none."""
    for region in data.get("SequenceOfUltrasoundRegions") or ():
        with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
            left, top, right, bottom = (
                int(region[f"RegionLocation{name}"].value)
                for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
            )
            width, height = int(data.Columns), int(data.Rows)
            yield left / width, top / height, (right + 1) / width, (bottom + 1) / height


def _listed(data: Dataset) -> Iterator[str]:
    """The files that a DICOMDIR lists."""
    for record in data.get("DirectoryRecordSequence") or ():
        parts = [str(part).strip() for part in _values(record, "ReferencedFileID")]
        if parts:
            yield "/".join(parts)


def _values(data: Dataset, name: str) -> list[Any]:
    """All values of an attribute; none where it is absent, empty or cannot be read."""
    try:
        value = data.get(name)
    except Exception:  # pydicom converts here, and a broken value raises almost anything
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple | MultiValue) else [value]


def _text(data: Dataset, name: str) -> str:
    """The first value of an attribute as text."""
    return next((str(value).strip(" \0") for value in _values(data, name)), "")


def _whole(data: Dataset, name: str) -> int:
    """The first value of an attribute as a whole number, 0 where it is none."""
    try:
        return int(_text(data, name) or 0)
    except ValueError:
        return 0
