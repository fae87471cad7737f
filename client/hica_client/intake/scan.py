"""First pass of an import: every file once, its header only; what it is goes into the register."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hica.progress import track
from hica_client.intake import reasons
from hica_client.intake.dicom import Header, read_header
from hica_client.intake.keys import handle_of, see_spelling
from hica_client.intake.kinds import kind_of
from hica_client.intake.layout import Tops, mask_reason, place_of
from hica_client.intake.medmnist import is_medmnist, listed
from hica_client.intake.pseudonyms import NAMELESS, Pseudonyms, same_writing
from hica_client.intake.register import Register
from hica_client.intake.scrub import words_of
from hica_client.intake.walk import Found, walk

MODALITIES = (
    "CR",
    "CT",
    "DX",
    "IO",
    "IVUS",
    "MG",
    "MR",
    "NM",
    "OCT",
    "OP",
    "OPT",
    "PT",
    "PX",
    "RF",
    "RG",
    "SM",
    "US",
    "XA",
    "XC",
)
FOR_NOW = (reasons.CLOSED, reasons.GONE)
"""Reasons that may be another next time, and with them nothing that the register could see."""
INTENTS = ("FOR PRESENTATION", "FOR PROCESSING")


@dataclass
class Scanned:
    """What the first pass has met, beside what is in the register."""

    tops: Tops = field(default_factory=Tops)
    missing: int = 0
    """Files that a DICOMDIR lists and that are not here."""


def scan(folder: Path, register: Register, pseudonyms: Pseudonyms) -> Scanned:
    """Read the header of every file below `folder` that the register does not know as it is."""
    scanned = Scanned()
    for found in track(walk(folder), "reading headers"):
        top = place_of(found).top
        scanned.tops.see(top_handle(pseudonyms, top), top)
        see_spelling(register, pseudonyms, found.relative, found.name)
        if not register.is_known(key_of(found, pseudonyms), stamp_of(found)):
            scanned.missing += _read(found, register, pseudonyms)
    register.commit()
    return scanned


def not_taken(
    folder: Path, register: Register, pseudonyms: Pseudonyms
) -> Iterator[tuple[str, str]]:
    """Path and reason of every file of this import that is not taken, for the screen only."""
    why = "SELECT coalesce(nullif(reason, ''), left_out) FROM sources WHERE key = ?"
    for found in walk(folder):
        if reason := register.value(why, key_of(found, pseudonyms)):
            yield found.relative, reason


def key_of(found: Found, pseudonyms: Pseudonyms, index: str = "") -> str:
    """The handle of a file by its place on this machine, and of a picture in it."""
    return pseudonyms.handle("source", str(found.path.absolute()), index)


def stamp_of(found: Found) -> str:
    """What is another as soon as a file is another."""
    return f"{found.size}:{found.mtime}"


def top_handle(pseudonyms: Pseudonyms, name: str) -> str:
    """The handle of a folder that may be a class or a patient."""
    return pseudonyms.patient("folder", name) if name else ""


def _read(found: Found, register: Register, pseudonyms: Pseudonyms) -> int:
    """Look into a file and note what it is; how many files it lists that are not here."""
    source = {"key": key_of(found, pseudonyms), "stamp": stamp_of(found)}
    if found.reason in FOR_NOW:
        source["stamp"] = "always read"
    try:
        kind = "other" if found.reason else kind_of(found.path)
        if kind == "numpy" and is_medmnist(found.path):
            _add_medmnist(found, register, pseudonyms)
            return 0
    except OSError:
        register.add(**{**source, "stamp": "always read"}, reason=reasons.CLOSED)
        return 0
    if kind == "dicom":
        return _add_dicom(found, source, register, pseudonyms)
    if kind == "picture":
        place = _placed(found, pseudonyms)
        register.add(**source, **place, reason=mask_reason(found))
        return 0
    by_kind = {"numpy": reasons.NO_MEDMNIST, "archive": reasons.ARCHIVE}
    register.add(**source, reason=found.reason or by_kind.get(kind, reasons.OTHER))
    return 0


def _placed(found: Found, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """What the place of a picture says, in handles."""
    place = place_of(found)
    return {
        "path": handle_of(pseudonyms, "path", found.relative),
        "name": handle_of(pseudonyms, "path", found.name),
        "top": top_handle(pseudonyms, place.top),
        "below": pseudonyms.patient("folder", place.top, place.below) if place.below else "",
        "split": place.split,
        "dicom": 0,
        "told": 0,
    }


def _add_dicom(
    found: Found, source: dict[str, str], register: Register, pseudonyms: Pseudonyms
) -> int:
    """Add a DICOM object; how many files it lists that are not here."""
    header = read_header(found.path)
    if header.reason == reasons.DIRECTORY:
        source["stamp"] = "always read"  # it costs nothing, and what it lists may be gone
    patient, bare = _patient(header, pseudonyms)
    study = handle_of(pseudonyms, "study", header.study)
    told = header.words & words_of(found.folders, found.folders)
    placed = {**_placed(found, pseudonyms), "dicom": 1, "told": int(bool(told))}
    register.add(
        **source,
        **placed,
        reason=header.reason,
        text=header.text,
        patient=patient,
        bare=bare,
        study=study,
        series=handle_of(pseudonyms, "series", header.series),
        instance=handle_of(pseudonyms, "instance", header.instance),
        accession=handle_of(pseudonyms, "accession", header.accession),
        modality=header.modality if header.modality in MODALITIES else "",
        intent=header.intent if header.intent in INTENTS else "",
        slice=int(header.slice_of_volume),
        position=header.position,
        number=header.number,
        burned=int(header.burned_in),
        areas=json.dumps(header.areas),
    )
    register.many(
        "INSERT OR IGNORE INTO words VALUES (?, ?)",
        ((patient, pseudonyms.handle("word", word)) for word in header.words if patient),
    )
    return sum(not _is_here(found.path.parent, name) for name in header.named_files)


def _patient(header: Header, pseudonyms: Pseudonyms) -> tuple[str, str]:
    """The pseudonym of an object's patient, and the handle of the PatientID without issuer.

    Without PatientID the study tells patients apart; without that, nothing here does.
    """
    number = same_writing(header.patient)
    if number not in NAMELESS:
        issuer = same_writing(header.issuer)
        bare = handle_of(pseudonyms, "bare", header.patient)
        return pseudonyms.patient("id", issuer, number), bare
    study = same_writing(header.study)
    return (pseudonyms.patient("study", study) if study else ""), ""


def _is_here(folder: Path, name: str) -> bool:
    """Whether a file is there that a DICOMDIR lists: in capitals, which a copy may have lost."""
    return any((folder / each).exists() for each in (name, name.lower()))


def _add_medmnist(found: Found, register: Register, pseudonyms: Pseudonyms) -> None:
    """Add the pictures of a MedMNIST file."""
    stamp = stamp_of(found)
    try:
        for entry in listed(found.path):
            key = key_of(found, pseudonyms, entry.name)
            if not register.is_known(key, stamp):
                path = handle_of(pseudonyms, "path", f"{found.relative}/{entry.name}")
                given = {"split": entry.split, "given": entry.label, "dicom": 0, "told": 0}
                register.add(stamp, key=key, path=path, **given)
    except ValueError:
        key = key_of(found, pseudonyms)
        register.add(stamp, key=key, reason=reasons.NO_MEDMNIST)
