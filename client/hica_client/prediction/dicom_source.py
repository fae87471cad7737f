"""The DICOM object that a prediction is of: what a result in DICOM takes over from it."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from hica.errors import ConfigurationError, DataError
from hica.images.sniff import kind_of

NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""What a result must refer to."""
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Of patient and study, which the standard wants to be there, known or not."""


@dataclass(frozen=True)
class Source:
    """A DICOM file that was predicted.

    Attributes:
        path: The file.
        dataset: All but its pixels.
        frame: Number of the frame that is seen, from 1; None where it has just one.
    """

    path: Path
    dataset: Dataset
    frame: int | None


def check_extra(option: str) -> None:
    """Check that what writes DICOM results is installed.

    Raises:
        ConfigurationError: It is not; names the extra.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"{option}: needs highdicom, which is not installed ({error}): "
            "pip install 'hica[dicom-sr]', or leave the option out"
        ) from None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM; what cannot be read is for the prediction to tell."""
    try:
        return kind_of(path) == "DICOM"
    except OSError:
        return False


def source_of(path: Path) -> Source:
    """The object in a file that was predicted.

    Raises:
        DataError: It does not say what it is, so nothing can refer to it.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            missing = [name for name in NEEDED if not dataset.get(name)]
            frames = int(dataset.get("NumberOfFrames") or 1)
    except Exception as error:  # a broken file makes the reader raise almost anything
        raise DataError(
            f"{path}: its tags cannot be read ({error}); export it again, or predict without --sr "
            "and --secondary-capture"
        ) from None
    if missing:
        raise DataError(
            f"{path}: has no {', '.join(missing)}, so that no result can refer to it; export it "
            "again with them, or predict without --sr and --secondary-capture"
        )
    for name in MAY_BE_EMPTY:
        if name not in dataset:
            setattr(dataset, name, None)
    return Source(path, dataset, frames // 2 + 1 if frames > 1 else None)
