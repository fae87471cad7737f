"""What an import leaves at the site: pictures, rows, and no identifier."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.hica_client.intake.exports import (
    CT,
    FINDING,
    OBSERVER,
    SCREENSHOT,
    SUBJECT,
    TEXT_REPORT,
    blob,
    content,
    finding,
    write_dicom,
)

from hica.errors import ConfigurationError, DataError, FederationError, StorageError
from hica.images.decode import read_picture
from hica_client.cli import main
from hica_client.intake import reasons, register, taking
from hica_client.intake.meant import Folders
from hica_client.preflight import preflight
from hica_client.withdrawal import withdraw

CASES = Path(__file__).parents[5] / "shared" / "cases"
IDENTIFIERS = {
    "PatientName": "Sentinela^Berta^^Dr",
    "PatientID": "PID-47Z1-Q",
    "OtherPatientIDs": "OTHER-99",
    "PatientBirthDate": "19510203",
    "AccessionNumber": "ACC77Z899",
    "StudyID": "STUDY-55X",
    "ReferringPhysicianName": "Referrero^Otto",
    "InstitutionName": "Hospital of Elsewhere",
    "DeviceSerialNumber": "SERIAL-31Z37",
    "StudyInstanceUID": "1.2.276.77.1",
    "SeriesInstanceUID": "1.2.276.77.1.2",
    "IssuerOfPatientID": "ISSUERHIS",
    "StudyDate": "20240509",
    "PatientAddress": "Secretstreet 5",
}
# None is made of hexadecimal digits alone, and could stand in a handle by chance; but for dates.
SECRETS = (
    *("Sentinela", "Berta", "47Z1", "OTHER-99", "19510203", "77Z899", "55X", "Referrero"),
    *("Elsewhere", "31Z37", "1.2.276", "ISSUERHIS", "20240509", "Secretstreet", "Reporterson"),
    *("exportdir", "IMAGEFILE"),
)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0, *capsys.readouterr()


def export_with_identifiers(folder: Path) -> Path:
    """Pictures, a report and a damaged file, with identifiers wherever there is a place for one."""
    inner = folder / "exportdir" / "Sentinela_Berta"
    for number in range(3):
        write_dicom(inner / f"IMAGEFILE{number}", blob(number), **IDENTIFIERS)
    report = [
        finding("Mass in the left breast of Mrs. Sentinela (PID-47Z1-Q), born 03.02.1951."),
        finding("Seen by REPORTERSON on 2024-05-09, order ACC77Z899; UID 1.2.276.77.1.2."),
        content("PNAME", OBSERVER, PersonName="Reporterson^Rita"),
        content("TEXT", SUBJECT, TextValue="PID-47Z1-Q"),
    ]
    write_dicom(
        inner / "report",
        None,
        SOPClassUID=TEXT_REPORT,
        Modality="SR",
        ContentSequence=report,
        **IDENTIFIERS,
    )
    broken = write_dicom(
        inner / "broken", blob(9), PatientID="Sentinela", SOPInstanceUID="1.2.276.77.9"
    )
    data = broken.read_bytes()
    broken.write_bytes(data[:-100])
    wrong = write_dicom(inner / "wrong", blob(10), **IDENTIFIERS)
    wrong.write_bytes(wrong.read_bytes().replace(b"1.2.276.77.1.2", b"1.2.276.77.x.2"))
    Image.fromarray(blob(11)).save(inner / "Sentinela.png")
    return folder / "exportdir"


def test_no_identifier_is_written_or_printed(hospital, tmp_path, capsys, caplog):
    source = export_with_identifiers(tmp_path)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "PatientID,label,report\n"
        "PID-47Z1-Q,benign,BERTA has a mass; call 030-5556677 or b.sentinela@example.org\n"
        "Sentinela-404,malignant,\n"
    )
    for more in ([], ["--json"]):
        code, out, err = run(capsys, "import", hospital.file, source, "--labels", labels, *more)
        assert code == 0
        said = (out + err + caplog.text).replace(str(labels), "").replace(str(source), "")
        assert not [word for word in SECRETS if word.lower() in said.lower()]
    assert len(hospital.pictures) == 5 and len(hospital.rows) == 5
    files = [path for path in hospital.folder.rglob("*") if path.is_file()]
    assert any(path.name == "import.sqlite" for path in files)
    for path in files:
        everything = f"{path.relative_to(hospital.folder)}".encode() + path.read_bytes()
        assert not [word for word in SECRETS if word.lower().encode() in everything.lower()], path
    texts = {row["report"] for row in hospital.rows if row["report"]}
    assert texts == {
        "Finding: Mass in the left breast of Mrs. [removed] ([removed]), born [removed]. "
        "Finding: Seen by [removed] on [removed], order [removed]; UID [removed]. "
        "[removed] has a mass; call [removed] or [removed]"
    }


def test_the_files_of_one_patient_are_one_patient(hospital, tmp_path):
    """They were eight patients."""
    writings = ("007", " 007", "007 ", "007\0", "007", "007", "007", "007")
    for number, writing in enumerate(writings):
        write_dicom(tmp_path / "x" / f"{number}", blob(number), PatientID=writing)
    write_dicom(tmp_path / "x" / "8", blob(8), PatientID="008")
    write_dicom(tmp_path / "x" / "9", blob(9), PatientID="007", IssuerOfPatientID="elsewhere")
    found = hospital.take(tmp_path / "x")
    assert (found.taken, found.patients) == (10, 3)
    counts = sorted(
        [row["patient_id"] for row in hospital.rows].count(patient)
        for patient in {row["patient_id"] for row in hospital.rows}
    )
    assert counts == [1, 1, 8]
    assert any("1 PatientID is of several issuers, and counts" in note for note in found.notes)


def test_a_patient_keeps_the_pseudonym_next_month(hospital, tmp_path):
    write_dicom(tmp_path / "may" / "1", blob(1), PatientID="A1")
    write_dicom(tmp_path / "june" / "1", blob(2), PatientID="a1 ")
    hospital.take(tmp_path / "may")
    hospital.take(tmp_path / "june")
    assert len({row["patient_id"] for row in hospital.rows}) == 1 and len(hospital.rows) == 2


def test_another_site_gives_another_pseudonym(make_hospital, tmp_path):
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="A1")
    first, second = make_hospital("a"), make_hospital("b")
    (second.folder / "keys" / "pseudonyms").unlink()
    first.take(tmp_path / "x")
    second.take(tmp_path / "x")
    assert first.rows[0]["patient_id"] != second.rows[0]["patient_id"]
    assert (second.folder / "keys" / "pseudonyms").stat().st_mode & 0o777 == 0o600


def test_without_patient_id_the_study_tells_patients_apart_then_the_folder(hospital, tmp_path):
    for number, study in enumerate(("1.1", "1.1", "1.2")):
        name = "ANONYMOUS" if number else None
        write_dicom(
            tmp_path / "x" / f"{number}", blob(number), StudyInstanceUID=study, PatientID=name
        )
    for number, folder in enumerate(("f", "f", "g")):
        path = tmp_path / "x" / folder / f"{number}"
        write_dicom(path, blob(number + 10), StudyInstanceUID=None)
    found = hospital.take(tmp_path / "x")
    assert (found.patients, found.by_study, found.by_folder) == (4, 3, 3)
    assert any("3 pictures have no PatientID: whoever has two studies" in n for n in found.notes)
    assert any("3 pictures have no PatientID: each folder counts" in note for note in found.notes)
    ignored = hospital.take(tmp_path / "x", folders=Folders.IGNORE)
    assert (ignored.patients, ignored.without_patient) == (2, 3)


def test_what_is_written_is_the_picture_that_is_read(hospital, tmp_path):
    deep = (blob(1).astype(np.uint16) * 200) + 77
    files = [
        write_dicom(tmp_path / "x" / "deep", deep, WindowCenter=20_000, WindowWidth=30_000),
        write_dicom(tmp_path / "x" / "colour", np.stack([blob(2), blob(3), blob(4)], axis=2)),
        tmp_path / "x" / "turned.jpg",
    ]
    turned = Image.fromarray(blob(5))
    exif = turned.getexif()
    exif[0x0112], exif[0x010E] = 6, "Sentinela"
    turned.save(files[2], exif=exif, comment=b"Sentinela")
    hospital.take(tmp_path / "x")
    expected = {read_picture(path).image.tobytes() for path in files}
    assert {read_picture(path).image.tobytes() for path in hospital.pictures} == expected
    for path in hospital.pictures:
        assert not Image.open(path).info


def test_the_same_import_adds_nothing_and_rows_that_were_edited_stay(hospital, tmp_path):
    for number in range(4):
        write_dicom(tmp_path / "x" / f"{number}", blob(number), PatientID=f"P{number}")
    assert hospital.take(tmp_path / "x").rows == {"added": 4, "updated": 0, "edited": 0}
    before = hospital.content()
    assert hospital.take(tmp_path / "x").rows == {"added": 0, "updated": 0, "edited": 0}
    assert hospital.content() == before
    lines = hospital.manifest.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace(",,", ",mine,", 1)
    lines.insert(2, 'own.png ,  theirs,"P, 9"\n')
    del lines[4]
    hospital.manifest.write_text("".join(lines))
    labels = tmp_path / "labels.csv"
    labels.write_text("PatientID,label\n" + "".join(f"P{n},benign\n" for n in range(4)))
    found = hospital.take(tmp_path / "x", labels=labels)
    assert found.rows == {"added": 1, "updated": 2, "edited": 1}
    kept = hospital.manifest.read_text().splitlines(keepends=True)
    assert kept[1:3] == lines[1:3]
    assert [row["label"] for row in hospital.rows] == ["mine", "  theirs", *["benign"] * 3]
    assert any("1 row of the manifest is left as you have written it" in n for n in found.notes)
    assert hospital.take(tmp_path / "x").rows["updated"] == 0  # labels are not taken away again


def test_a_manifest_without_columns_gets_those_that_are_needed(hospital, tmp_path):
    hospital.manifest.write_bytes(b"\xef\xbb\xbfimage,label,ward\r\nown.png,benign,3\r\n")
    write_dicom(tmp_path / "x" / "0", blob(0), PatientID="P")
    hospital.take(tmp_path / "x")
    own, new = hospital.rows
    assert (own["label"], own["ward"], own["patient_id"]) == ("benign", "3", "")
    assert new["patient_id"].startswith("p") and new["image"].startswith("images/p")
    assert preflight(hospital.file).problems[0].args[0].count("own.png does not exist") == 1


def test_every_file_is_taken_or_says_why_not(hospital, tmp_path):
    source = tmp_path / "x"
    write_dicom(source / "IM000001", blob(1), PatientID="P1")
    shutil.copy(source / "IM000001", source / "copy.dcm")
    for number in range(5):
        tags = {
            "ImagePositionPatient": [0, 0, number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }
        write_dicom(
            source / "ct" / f"{number}",
            blob(number + 20),
            SOPClassUID=CT,
            Modality="CT",
            InstanceNumber=5 - number,
            **tags,
        )
    write_dicom(
        source / "scout",
        blob(2),
        SOPClassUID=CT,
        Modality="CT",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    write_dicom(source / "shot", blob(3), SOPClassUID=SCREENSHOT, Modality="CT")
    write_dicom(source / "dose", None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67", Modality="SR")
    write_dicom(source / "cad", None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.50", Modality="SR")
    write_dicom(source / "empty-sr", None, SOPClassUID=TEXT_REPORT, Modality="SR")
    write_dicom(source / "state", None, SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", Modality="PR")
    write_dicom(
        source / "plan", None, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5", Modality="RTPLAN"
    )
    write_dicom(
        source / "pdf",
        None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1",
        EncapsulatedDocument=b"%PDF",
        MIMETypeOfEncapsulatedDocument="application/pdf",
    )
    for intent in ("FOR PROCESSING", "FOR PRESENTATION"):
        write_dicom(
            source / intent,
            blob(len(intent)),
            StudyInstanceUID="1.9",
            Modality="MG",
            PresentationIntentType=intent,
        )
    (source / "cut.dcm").write_bytes((source / "IM000001").read_bytes()[:-50])
    (source / "garbage").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    (source / "text.txt").write_text("hello")
    (source / "nothing").touch()
    (source / "Thumbs.db").write_bytes(b"x")
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "._a.png").write_bytes(b"x")
    (source / ".hidden").mkdir()
    (source / ".hidden" / "a").write_bytes(b"x")
    (source / "a.zip").write_bytes(b"PK\x03\x04")
    np.savez(source / "b.npz", pictures=blob(1))
    Image.fromarray(blob(6)).save(source / "6_mask.png")
    (source / "link").symlink_to(tmp_path)
    (source / "loop").symlink_to(source)
    found = hospital.take(source)
    assert found.skipped == {
        reasons.SLICE: 4, reasons.SYSTEM: 2, reasons.LINK: 2, reasons.SCOUT: 1, reasons.SCREEN: 1,
        reasons.DOSE: 1, reasons.DETECTION: 1, reasons.NO_TEXT: 1, reasons.SEGMENTATION: 1,
        reasons.NO_PIXELS: 1, reasons.DOCUMENT: 1, reasons.RAW: 1, reasons.AGAIN: 1,
        reasons.DECODING: 1, reasons.DAMAGED: 1, reasons.OTHER: 1, reasons.EMPTY: 1,
        reasons.HIDDEN: 1, reasons.ARCHIVE: 1, reasons.NO_MEDMNIST: 1, reasons.MASK: 1,
    }  # fmt: skip
    assert found.taken == 3 and found.read == found.taken + sum(found.skipped.values())
    assert found.read == len(
        [each for each in source.rglob("*") if each.is_symlink() or each.is_file()]
    )
    assert any(note.startswith("1 × cannot be decoded") for note in found.notes)


@pytest.mark.real_data
@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, which is not here")
def test_the_export_of_the_cases(hospital):
    found = hospital.take(CASES / "folder")
    assert set(found.labels) == {"benign", "malignant"} and found.unlabelled == 0
    assert found.read == found.taken + sum(found.skipped.values()) == 8
    assert found.skipped[reasons.SYSTEM] == 2


def test_what_was_imported_is_ready(hospital, tmp_path, capsys):
    for number in range(12):
        folder = tmp_path / "x" / ("benign", "malignant")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blob(number, 64)).save(folder / f"{number}.png")
    code, out, _ = run(capsys, "import", hospital.file, tmp_path / "x")
    assert code == 0 and f"hica-client check {hospital.file}" in out
    found = preflight(hospital.file)
    assert not found.problems and found.facts["images"] == 12
    assert found.facts["labels"]["benign"] == {"to be drawn": 6}


def test_near_duplicates_are_one_group_also_of_earlier_imports(hospital, tmp_path):
    for name, seed, gain in (("may/a", 1, 1.0), ("may/b", 2, 1.0), ("june/c", 1, 0.9)):
        write_dicom(tmp_path / name, (blob(seed, 64) * gain).astype(np.uint8), PatientID=name)
    assert hospital.take(tmp_path / "may").near_duplicates == 0
    assert hospital.take(tmp_path / "june").rows == {"added": 1, "updated": 1, "edited": 0}
    marks = sorted(row["dup_group"] for row in hospital.rows)
    assert marks[0] == "" and marks[1] == marks[2] != ""
    before = hospital.content()
    hospital.take(tmp_path / "may")
    assert hospital.content() == before


def test_who_has_withdrawn_is_not_taken_in_again(hospital, tmp_path):
    for number in range(4):
        patient = f"P{number // 2}"
        write_dicom(
            tmp_path / "x" / f"{number}",
            blob(number),
            PatientID=patient,
            StudyInstanceUID=f"1.{patient[1]}",
        )
    report = [finding("A very particular sentence")]
    write_dicom(
        tmp_path / "x" / "sr",
        None,
        SOPClassUID=TEXT_REPORT,
        Modality="SR",
        PatientID="P0",
        StudyInstanceUID="1.0",
        ContentSequence=report,
    )
    hospital.take(tmp_path / "x")
    [patient] = {row["patient_id"] for row in hospital.rows if row["report"]}
    withdraw(hospital.site, patient, "me")
    assert b"particular" not in hospital.site.imports.read_bytes()
    found = hospital.take(tmp_path / "x")
    assert (found.taken, found.skipped) == (2, {reasons.WITHDRAWN: 2})
    assert patient not in {row["patient_id"] for row in hospital.rows}
    assert not list((hospital.folder / "images" / patient).glob("*"))


def test_the_text_of_reports_stands_in_the_rows_of_their_study(hospital, tmp_path):
    for number, study in enumerate(("1.1", "1.1", "1.2")):
        write_dicom(tmp_path / "x" / f"{number}", blob(number), StudyInstanceUID=study)
    nested = content("CONTAINER", FINDING, ContentSequence=[finding("Calcified")])
    write_dicom(
        tmp_path / "x" / "sr",
        None,
        SOPClassUID=TEXT_REPORT,
        Modality="SR",
        StudyInstanceUID="1.1",
        ContentSequence=[finding("A mass."), nested],
    )
    found = hospital.take(tmp_path / "x")
    assert (found.reports, found.reported) == (1, 2)
    assert sorted(row["report"] for row in hospital.rows) == [
        "",
        *["Finding: A mass. Finding: Calcified."] * 2,
    ]


def test_a_report_of_a_study_without_a_picture_is_counted(hospital, tmp_path):
    write_dicom(tmp_path / "x" / "1", blob(1), StudyInstanceUID="1.1")
    for number in range(2):
        write_dicom(
            tmp_path / "x" / f"sr{number}",
            None,
            SOPClassUID=TEXT_REPORT,
            StudyInstanceUID=f"1.{number + 1}",
            ContentSequence=[finding("A mass.")],
        )
    found = hospital.take(tmp_path / "x")
    assert (found.reports, found.reports_without_picture, found.reported) == (2, 1, 1)
    assert any("1 report has no picture of its study" in note for note in found.notes)


def test_files_that_a_dicomdir_lists_and_that_are_away(hospital, tmp_path):
    from pydicom.fileset import FileSet

    for number in range(3):
        write_dicom(
            tmp_path / "in" / f"{number}",
            blob(number),
            PatientID="P",
            PatientName="N",
            StudyDate="20200101",
            StudyTime="000000",
            StudyID="1",
            SeriesNumber=1,
            InstanceNumber=number,
            SOPInstanceUID=f"1.2.9.{number}",
        )
    files = FileSet()
    for number in range(3):
        files.add(tmp_path / "in" / f"{number}")
    files.write(tmp_path / "cd")
    [first, *_] = sorted(
        path for path in (tmp_path / "cd").rglob("*") if path.name.startswith("IM")
    )
    first.unlink()
    for _ in range(2):
        found = hospital.take(tmp_path / "cd")
        assert (found.taken, found.skipped[reasons.DIRECTORY]) == (2, 1)
        assert any("1 file that a DICOMDIR lists is not here" in note for note in found.notes)


def test_a_second_import_at_the_same_time_is_refused(hospital, tmp_path, hold_elsewhere):
    (tmp_path / "x").mkdir()
    hold_elsewhere(hospital.folder / "state" / "import.lock")
    with pytest.raises(FederationError, match=r"an import into .* is running already"):
        hospital.take(tmp_path / "x")


def test_a_folder_that_is_not_there_or_is_the_sites_own(hospital, tmp_path):
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file or directory; name"):
        hospital.take(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="into which is imported; name the folder"):
        hospital.take(hospital.folder)


def test_a_secret_that_is_lost_open_or_another(hospital, tmp_path):
    secret = hospital.folder / "keys" / "pseudonyms"
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P")
    hospital.take(tmp_path / "x")
    secret.write_text("6" * 64)
    with pytest.raises(ConfigurationError, match="is not the secret of the earlier imports"):
        hospital.take(tmp_path / "x")
    secret.write_text("6" * 12)
    with pytest.raises(ConfigurationError, match="is not the secret that was written there"):
        hospital.take(tmp_path / "x")
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"can be read by others\. Run: chmod 600"):
        hospital.take(tmp_path / "x")
    secret.unlink()
    with pytest.raises(ConfigurationError, match="missing, and pictures were imported with it"):
        hospital.take(tmp_path / "x")
    secret.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        hospital.take(tmp_path / "x")


def test_a_register_that_is_damaged_or_of_another_version(hospital, tmp_path):
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P")
    hospital.take(tmp_path / "x")
    with register.opened(hospital.site.imports) as opened:
        opened.change("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="is of another version of HiCA; move it away"):
        hospital.take(tmp_path / "x")
    hospital.site.imports.write_bytes(b"garbage" * 1000)
    with pytest.raises(DataError, match=r"import.sqlite: is damaged \(.*; move it away and import"):
        hospital.take(tmp_path / "x")
    before = hospital.manifest.read_bytes()
    hospital.site.imports.unlink()
    assert hospital.take(tmp_path / "x").rows == {"added": 0, "updated": 0, "edited": 0}
    assert hospital.manifest.read_bytes() == before


def test_a_full_disk_is_named_and_the_import_goes_on_later(hospital, tmp_path, monkeypatch):
    for number in range(5):
        write_dicom(tmp_path / "x" / f"{number}", blob(number), PatientID=f"P{number}")

    def full(*_: object, **__: object) -> None:
        raise StorageError("images: cannot be written: No space left on device; free space")

    with monkeypatch.context() as patch:
        patch.setattr("hica_client.intake.taking.write_atomically", full)
        with pytest.raises(StorageError, match="No space left"):
            hospital.take(tmp_path / "x")
    assert not hospital.manifest.exists()
    with (
        pytest.raises(
            StorageError, match=r"import\.sqlite: cannot be written: database or disk is full"
        ),
        register.opened(hospital.site.imports) as opened,
    ):
        opened.change(f"PRAGMA max_page_count = {opened.value('PRAGMA page_count')}")
        opened.change("INSERT INTO written SELECT zeroblob(100000)")
    assert hospital.take(tmp_path / "x").rows["added"] == 5


def test_the_end_of_an_import_as_json(hospital, tmp_path, capsys):
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P")
    found = json.loads(run(capsys, "import", hospital.file, tmp_path / "x", "--json")[1])
    assert (found["read"], found["taken"], found["patients"]) == (1, 1, 1)
    assert found["rows"] == {"added": 1, "updated": 0, "edited": 0}


def test_reading_reports_by_the_register_alone(hospital, tmp_path):
    """A concept name alone is no finding."""
    item = content("CONTAINER", FINDING)
    write_dicom(tmp_path / "x" / "sr", None, SOPClassUID=TEXT_REPORT, ContentSequence=[item])
    assert hospital.take(tmp_path / "x").skipped == {reasons.NO_TEXT: 1}


def test_what_was_skipped_is_named_where_that_is_wished_and_nowhere_else(
    hospital, tmp_path, capsys
):
    (tmp_path / "x" / "Sentinela").mkdir(parents=True)
    (tmp_path / "x" / "Sentinela" / "a\x1b.txt").write_text("no picture")
    _, out, err = run(capsys, "import", hospital.file, tmp_path / "x")
    assert "Sentinela" not in out + err and "the same command with --list" in out
    _, out, err = run(capsys, "import", hospital.file, tmp_path / "x", "--list")
    assert f"skipped Sentinela/a�.txt: {reasons.OTHER}\n" in err and "Sentinela" not in out
    assert not any(b"Sentinela" in path.read_bytes() for path in hospital.folder.rglob("*.*"))


def test_ctrl_c_leaves_files_whole(hospital, make_hospital, tmp_path, monkeypatch):
    for number in range(6):
        write_dicom(tmp_path / "x" / f"{number}", blob(number), PatientID=f"P{number}")
    written, write = [], taking.write_atomically

    def interrupt(path: Path, *rest: object, **more: object) -> None:
        write(path, *rest, **more)
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(taking, "write_atomically", interrupt)
        main(["import", str(hospital.file), str(tmp_path / "x")])
    assert end.value.code == 130 and not hospital.manifest.exists()
    hospital.take(tmp_path / "x")
    whole = make_hospital("whole")
    whole.take(tmp_path / "x")
    assert hospital.content() == whole.content()


def test_a_register_that_another_process_holds(hospital, tmp_path, monkeypatch):
    monkeypatch.setattr(register, "WAIT", 0)
    with (
        register.opened(hospital.site.imports) as first,
        pytest.raises(StorageError, match="is held by an import that is running; wait until"),
    ):
        first.change("INSERT INTO written VALUES ('a')")
        with register.opened(hospital.site.imports) as second:
            second.change("INSERT INTO written VALUES ('b')")


def test_pictures_of_the_hospitals_own_need_no_secret(make_hospital, tmp_path):
    own = make_hospital()
    (own.folder / "keys" / "pseudonyms").unlink()
    own.manifest.write_text("image\nimages/photo1.png\n")
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P")
    assert own.take(tmp_path / "x").rows["added"] == 1


def test_a_file_that_may_be_read_now_is_read(hospital, tmp_path, monkeypatch):
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P")

    def closed(_: Path) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("hica_client.intake.scan.kind_of", closed)
        found = hospital.take(tmp_path / "x")
    assert found.skipped == {reasons.CLOSED: 1}
    assert found.notes[0] == "no picture was taken: is this the folder of the export?"
    assert hospital.take(tmp_path / "x").taken == 1


def test_who_could_read_the_manifest_still_can(hospital, tmp_path):
    hospital.manifest.write_text("image\n")
    hospital.manifest.chmod(0o640)
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P")
    hospital.take(tmp_path / "x")
    assert hospital.manifest.stat().st_mode & 0o777 == 0o640


def test_a_label_that_was_taken_away_stays_away(hospital, tmp_path):
    """The row is then as the first import wrote it, and yet a person has changed it."""
    write_dicom(tmp_path / "x" / "1", blob(1), PatientID="P1")
    labels = tmp_path / "labels.csv"
    labels.write_text("PatientID,label\nP1,benign\n")
    hospital.take(tmp_path / "x")
    hospital.take(tmp_path / "x", labels=labels)
    assert hospital.rows[0]["label"] == "benign"
    hospital.manifest.write_text(hospital.manifest.read_text().replace("benign", ""))
    assert hospital.take(tmp_path / "x", labels=labels).rows["edited"] == 1
    assert hospital.rows[0]["label"] == ""
