"""What of an import may not be meant, each in words, with what to do about it."""

from collections.abc import Iterator, Mapping

from hica_client.intake.counts import Summary
from hica_client.intake.meant import Folders
from hica_client.intake.rows import RowMaker
from hica_client.intake.scan import Scanned


def notes_of(
    summary: Summary,
    maker: RowMaker,
    scanned: Scanned,
    failures: Mapping[str, int],
    meant: Folders,
) -> list[str]:
    """What may not be meant, each with what to do about it."""
    notes = [f"{count} × {words}" for words, count in failures.items()]
    if not summary.taken:
        notes.append("no picture was taken: is this the folder of the export?")
    if scanned.missing:
        notes.append(
            f"{many(scanned.missing, 'file')} that a DICOMDIR lists "
            f"{'is' if scanned.missing == 1 else 'are'} not here: the export is not whole; copy it "
            "again"
        )
    notes += maker.labels.notes()
    notes += _of_folders(summary, maker, scanned, meant)
    notes += _of_pictures(summary)
    notes += _of_patients(summary, maker)
    if lonely := summary.reports_without_picture:
        their = "its" if lonely == 1 else "their"
        notes.append(
            f"{many(lonely, 'report', 'has', 'have')} no picture of {their} study in this export: "
            f"{their} text is left out"
        )
    if edited := summary.rows["edited"]:
        notes.append(
            f"{many(edited, 'row', 'of the manifest is', 'of the manifest are')} left as you have "
            f"written {'it' if edited == 1 else 'them'}, though this import would write "
            f"{'it' if edited == 1 else 'them'} otherwise"
        )
    return notes


def many(count: int, noun: str, one: str = "", several: str = "") -> str:
    """`1 picture has`, `2 pictures have`."""
    verb = one if count == 1 else several
    return f"{count} {noun}{'s' * (count != 1)}{f' {verb}' if verb else ''}"


def _of_folders(
    summary: Summary, maker: RowMaker, scanned: Scanned, meant: Folders
) -> Iterator[str]:
    """Which folders are labels, or that none are."""
    if maker.contradictions:
        yield (
            f"{many(maker.contradictions, 'picture', 'lies', 'lie')} in several classes and "
            f"{'has' if maker.contradictions == 1 else 'have'} no label: keep each in one folder"
        )
    if maker.classes:
        yield (
            f"folders were taken for classes: {', '.join(sorted(maker.classes.values()))}. If one "
            "of these is a patient, take the rows of this import out of the manifest, and import "
            "with --folders patients"
        )
    elif meant == Folders.AUTO and scanned.tops.names and summary.unlabelled == summary.taken:
        yield (
            "folders were not taken for classes, as their names may be those of patients: give "
            "--folders classes if they are classes, --folders patients if each is a patient, or a "
            "table of labels (--labels)"
        )


def _of_pictures(summary: Summary) -> Iterator[str]:
    """What text may be burned in."""
    if summary.burned_in or summary.lettered:
        yield (
            f"text is burned into {many(summary.burned_in, 'picture')} as the header says, "
            f"and seems to be in {summary.lettered} more. It may name patients: look at them, or "
            "import with --skip-burned-in. What has not been found may still be there"
        )


def _of_patients(summary: Summary, maker: RowMaker) -> Iterator[str]:
    """Whose pictures are not known for certain."""
    if summary.without_patient:
        yield (
            f"{many(summary.without_patient, 'picture', 'says', 'say')} nothing of the patient: "
            "fill in patient_id where you know it, or give each patient's files a folder, and "
            "--folders patients"
        )
    if summary.by_study:
        yield (
            f"{many(summary.by_study, 'picture', 'has', 'have')} no PatientID: whoever has two "
            "studies counts as two patients"
        )
    if summary.by_folder:
        yield (
            f"{many(summary.by_folder, 'picture', 'has', 'have')} no PatientID: each folder counts "
            "as a patient (--folders ignore: as nobody's)"
        )
    register = maker.register
    issuers = register.value(
        "SELECT count(*) FROM (SELECT bare FROM sources WHERE run = ? AND bare != '' GROUP BY bare "
        "HAVING count(DISTINCT patient) > 1)",
        register.run,
    )
    if issuers:
        yield (
            f"{many(issuers, 'PatientID', 'is', 'are')} of several issuers, and "
            f"{'counts' if issuers == 1 else 'count'} as a patient for each issuer"
        )
