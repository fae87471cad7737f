"""Results in DICOM: structured reports and secondary captures of predicted DICOM images.

All of a run that are of one study are one series of each kind.
"""

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from hica.errors import ConfigurationError, DataError
from hica.images.manifest import Record
from hica.images.overlay import heat_map
from hica.progress import say, track
from hica.storage import write_atomically
from hica_client.prediction.dicom_source import Source, check_extra, is_dicom, source_of
from hica_client.prediction.explanation_written import check_empty
from hica_client.prediction.predict import Prediction, Predictor
from hica_client.prediction.provenance import Provenance, provenance_of

FOLDER = "dicom"


@dataclass(frozen=True)
class Wanted:
    """What is to be written."""

    sr: bool
    secondary_capture: bool

    @property
    def option(self) -> str:
        """The option that asks for it, for messages; empty where nothing is."""
        return "--sr" if self.sr else "--secondary-capture" if self.secondary_capture else ""


def check_wanted(wanted: Wanted, records: Sequence[Record], out: Path) -> None:
    """Check what can be checked before anything is predicted.

    Raises:
        ConfigurationError: What writes DICOM is not installed, no image is DICOM, or there are
            results of an earlier run.
    """
    if not wanted.option:
        return
    check_extra(wanted.option)
    others = [record.name for record in records if not is_dicom(record.image)]
    if len(others) == len(records):
        raise ConfigurationError(
            f"{wanted.option}: {others[0]}: is no DICOM file, and neither is any other; a result "
            "in DICOM is of a DICOM image: name DICOM files, or leave the option out"
        )
    check_empty(out / FOLDER)
    if others:
        say(f"{wanted.option}: {len(others)} images are no DICOM and get none: {others[0]} …")


def write_dicom(
    out: Path,
    wanted: Wanted,
    predictor: Predictor,
    records: Sequence[Record],
    predictions: Sequence[Prediction],
) -> tuple[list[dict[str, str]], list[DataError]]:
    """Write what is wanted of every DICOM image that could be predicted, below `out/dicom`.

    Gives the files of each image by the option, and what was wrong with others: of nothing that is
    wanted, nothing.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    if not wanted.option:
        return [], []
    import highdicom as hd

    made_by = provenance_of(predictor)
    written: list[dict[str, str]] = []
    problems: list[DataError] = []
    series: dict[tuple[str, str], str] = {}
    numbers: Counter[str] = Counter()
    both = [
        (record, said)
        for record, said in zip(records, predictions, strict=True)
        if said.probabilities and is_dicom(record.image)
    ]
    for row, (record, said) in enumerate(track(both, "writing DICOM", len(both)), start=1):
        files = {"image": record.name}
        try:
            source = source_of(record.image)
            study = str(source.dataset.StudyInstanceUID)
            numbers[study] += 1
            for kind in ("sr", "secondary_capture"):
                if not getattr(wanted, kind):
                    continue
                uid = series.setdefault((kind, study), hd.UID())
                made = _made(kind, source, record, said, predictor, made_by, uid, numbers[study])
                name = f"{FOLDER}/{row:05d}-{kind.replace('_', '-')}.dcm"
                write_atomically(out / name, _bytes_of(made), mode=0o600)
                files[kind] = name
        except DataError as error:
            problems.append(error)
        written += [files] if len(files) > 1 else []
    return written, problems


def _made(
    kind: str,
    source: Source,
    record: Record,
    said: Prediction,
    predictor: Predictor,
    made_by: Provenance,
    series_uid: str,
    number: int,
) -> Dataset:
    """One object.

    Raises:
        DataError: The image's own tags are such that none can be made.
    """
    from hica_client.prediction.secondary_capture import pictured, secondary_capture
    from hica_client.prediction.structured_report import structured_report

    likely = max(said.probabilities, key=said.probabilities.__getitem__)
    drawn = None
    if kind != "sr":
        pixels = predictor.models.pixels(record)[0]
        likeness = predictor.models.class_map(pixels, predictor.names.index(likely))
        drawn = pictured(heat_map(pixels, likeness), said, likely, made_by)
    try:
        with warnings.catch_warnings(action="ignore"):
            if drawn is None:
                return structured_report(source, said, made_by, series_uid, number)
            return secondary_capture(source, drawn, likely, made_by, series_uid, number)
    except Exception as error:  # of a source whose tags are not as the standard has them
        raise DataError(
            f"{record.image}: no result in DICOM can be made of its tags "
            f"({type(error).__name__}: {error}); export it again, or predict without --sr and "
            "--secondary-capture"
        ) from None


def _bytes_of(made: Dataset) -> bytes:
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
