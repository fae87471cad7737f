"""What is counted of an import, for its end and for `--json`."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Summary:
    """The counts of an import; nothing of it names a patient or a file."""

    read: int = 0
    """Files, and pictures of MedMNIST files: `taken`, `reports` and `skipped` add up to it."""
    taken: int = 0
    reports: int = 0
    """Structured reports and documents whose text was read."""
    reports_without_picture: int = 0
    """Those of whose study no picture was taken: their text stands nowhere."""
    skipped: dict[str, int] = field(default_factory=dict)
    """By reason."""
    rows: dict[str, int] = field(default_factory=dict)
    """Of the manifest: `added`, `updated`, and `edited`: left as a person has written them."""
    patients: int = 0
    without_patient: int = 0
    """Pictures of which nothing says whose they are."""
    by_study: int = 0
    """Pictures whose patient is known by the study, as the PatientID is empty."""
    by_folder: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    reported: int = 0
    """Pictures with the text of a report."""
    near_duplicates: int = 0
    burned_in: int = 0
    """Pictures taken of which the header says that text is burned in."""
    lettered: int = 0
    """Others that seem to hold text."""
    decoded: dict[str, int] = field(default_factory=dict)
    """Pictures by the way they came to 8 bits."""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)
