"""Which studies and series are taken, asked for at the PACS and checked once more here.

A PACS may pass over a key that it cannot match on, and then answers with studies that nobody asked
for. So every answer is compared with the question, and what does not fit is not taken.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import product

Attributes = Mapping[str, str]
"""What a PACS says of a study, series or instance: keyword → value; several parted by backslashes.
A keyword that it did not answer is absent, one without a value is empty."""

STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyDescription",
    "ModalitiesInStudy",
    "PatientID",
    "AccessionNumber",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "NumberOfSeriesRelatedInstances",
)
INSTANCE_KEYS = ("SOPInstanceUID", "SOPClassUID")
_UID = re.compile(r"(?!\.+$)[0-9A-Za-z._-]{1,128}")
"""Wider than the standard, as archives are, but nothing that means more in a path or a search."""


@dataclass(frozen=True)
class Case:
    """One line of a list of patients or studies."""

    line: int
    """In the file, for messages."""
    patient_id: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)


@dataclass(frozen=True)
class Query:
    """One question for studies; a PACS matches one modality and one case at a time."""

    keys: Mapping[str, str] = field(repr=False)
    case: Case | None = None

    def matches(self, study: Attributes) -> bool:
        """Whether a study that the PACS answered is one that was asked for."""
        return all(_matches(key, asked, study.get(key)) for key, asked in self.keys.items())


@dataclass(frozen=True)
class Selection:
    """What is asked for; an empty one is everything."""

    first: date | None = None
    last: date | None = None
    """Days of the study, both included."""
    modalities: tuple[str, ...] = ()
    """Studies with one of them, and of those only such series."""
    also: tuple[str, ...] = ()
    """Modalities of further series of the same studies."""
    study_description: str = ""
    series_description: str = ""
    """With `*` and `?` for what may stand there; letters great and small are the same."""
    cases: tuple[Case, ...] = ()
    limit: int | None = None
    """Of studies."""

    def queries(self) -> Iterator[Query]:
        """All questions; together they find every study of the selection."""
        keys = {}
        if self.first or self.last:
            keys["StudyDate"] = "-".join(
                f"{day:%Y%m%d}" if day else "" for day in (self.first, self.last)
            )
        for case, modality in product(self.cases or (None,), self.modalities or ("",)):
            more = {
                "ModalitiesInStudy": modality,
                "PatientID": case.patient_id if case else "",
                "AccessionNumber": case.accession_number if case else "",
            }
            yield Query(keys | {key: value for key, value in more.items() if value}, case)

    def describes(self, study: Attributes) -> bool:
        """Whether a study's description is one that is asked for.

        Only looked at here: an archive need not match on it, and many tell capitals apart.
        """
        return not self.study_description or _fits(
            self.study_description, study.get("StudyDescription", "")
        )

    def takes(self, series: Attributes) -> bool:
        """Whether a series of a chosen study is taken."""
        modality = series.get("Modality", "")
        if self.modalities and modality not in self.modalities + self.also:
            return False
        return not self.series_description or _fits(
            self.series_description, series.get("SeriesDescription", "")
        )

    def to_dict(self) -> dict[str, object]:
        """For a record; of a list of cases only their number."""
        return {
            "from_date": self.first and self.first.isoformat(),
            "to_date": self.last and self.last.isoformat(),
            "modalities": list(self.modalities),
            "also": list(self.also),
            "study_description": self.study_description,
            "series_description": self.series_description,
            "cases": len(self.cases),
            "limit": self.limit,
        }


def uid_of(attributes: Attributes, keyword: str) -> str | None:
    """The UID that a PACS answered; None where it is none."""
    uid = attributes.get(keyword, "").strip()
    return uid if _UID.fullmatch(uid) else None


def _matches(key: str, asked: str, value: str | None) -> bool:
    if value is None:  # this alone need not be answered; series tell it, too
        return key == "ModalitiesInStudy"
    value = value.strip()
    if key == "StudyDate":
        first, _, last = asked.partition("-")
        day = value.replace(".", "")  # as it was written before 1993
        return bool(day) and (not first or first <= day) and (not last or day <= last)
    if key == "ModalitiesInStudy":
        return asked in [each.strip() for each in value.split("\\")]
    return value == asked


def _fits(pattern: str, text: str) -> bool:
    """Whether a description is of a pattern with `*` and `?`, as DICOM has them."""
    literal = pattern.replace("[", "[[]")  # of fnmatch only
    return fnmatch.fnmatchcase(text.strip().casefold(), literal.casefold())
