"""Tables of labels: by whichever key, and what is said of lines that come to nothing."""

import pytest
from tests.unit.hica_client.intake.exports import CT, blob, write_dicom

from hica.errors import DataError


@pytest.fixture
def source(tmp_path):
    """Two patients, of whom the first has two studies."""
    for number, (patient, study) in enumerate((("007", "1.1"), ("007", "1.2"), ("8", "1.3"))):
        write_dicom(
            tmp_path / "x" / f"folder{number}" / f"IM{number}",
            blob(number),
            PatientID=patient,
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.5",
            SOPInstanceUID=f"{study}.5.6",
            AccessionNumber=f"ACC{number}",
        )
    return tmp_path / "x"


@pytest.mark.parametrize(
    ("header", "key", "labelled"),
    [
        ("PatientID", "007 ", 2),
        ("patient id", "007", 2),
        ("StudyInstanceUID", "1.2", 1),
        ("SERIESINSTANCEUID", "1.3.5", 1),
        ("SOPInstanceUID", "1.1.5.6", 1),
        ("accession_number", "acc1", 1),
        ("file", "folder1/IM1", 1),
        ("Path", ".\\folder1\\IM1", 1),
        ("image", "IM1", 1),
    ],
)
def test_any_key_may_say_which_pictures_are_meant(
    hospital, source, tmp_path, header, key, labelled
):
    table, sign = tmp_path / "labels.csv", ",;\t"[len(key) % 3]  # as spreadsheets save them
    table.write_text(f"\ufeff{header}{sign}Label\n{key}{sign}benign\n", encoding="utf-8")
    found = hospital.take(source, labels=table)
    assert (found.labels, found.unlabelled) == ({"benign": labelled}, 3 - labelled)
    assert not [note for note in found.notes if "of the labels" in note]


def test_the_narrowest_key_counts_and_findings_and_split_come_with_it(hospital, source, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "PatientID,StudyInstanceUID,label,findings,split\n"
        '007,,benign,,train\n,1.2,"malig\nnant",spiculated margin|mass,test\n'
    )
    hospital.take(source, labels=table)
    said = sorted((row["label"], row["findings"], row["split"]) for row in hospital.rows)
    assert said == [
        ("", "", ""), ("benign", "", "train"), ("malig nant", "spiculated margin|mass", "test")
    ]  # fmt: skip


def test_lines_that_come_to_nothing_are_counted_and_keys_are_not_said(hospital, source, tmp_path):
    table = tmp_path / "labels.csv"
    lines = ["PatientID,label", "7,benign", "8,benign", "8,malignant", ",benign", "", "9,x"]
    table.write_text("\n".join(lines) + "\n")
    found = hospital.take(source, labels=table)
    assert found.labels == {}
    notes = " ".join(found.notes)
    assert "2 lines (2, 7) of the labels: no picture of this import has this key" in notes
    assert "2 lines (3, 4) of the labels contradict each other: their pictures have no" in notes
    assert "1 line (5) of the labels: the key is empty; fill it in" in notes


def test_a_file_that_lies_in_several_folders_is_not_meant_by_its_name(hospital, tmp_path):
    for number, name in enumerate(("a/IM1", "b/IM1", "b/IM2", "IM3", "a/IM3")):
        write_dicom(tmp_path / "x" / name, blob(number), PatientID=name)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nIM1,wrong\nIM2,benign\nIM3,malignant\nb/IM1,benign\n")
    found = hospital.take(tmp_path / "x", labels=table)
    assert (found.labels, found.unlabelled) == ({"benign": 2, "malignant": 1}, 2)
    [note] = [note for note in found.notes if "of the labels" in note]
    assert note.startswith("1 line (2) of the labels: a file of this name lies in several")


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        ("Fu\u0308r/IM1", "F\u00fcr/IM1"),
        ("F\u00fcr/IM1", "Fu\u0308r/IM1"),
        ("a/IM1.DCM", "A/im1.dcm"),
        ("a/IM1.DCM", "im1.dcm"),
        ("Stra\u00dfe/IM1", "STRASSE/IM1"),
    ],
)
def test_a_file_in_another_unicode_form_or_other_capitals(hospital, tmp_path, on_disk, in_table):
    write_dicom(tmp_path / "x" / on_disk, blob(1), PatientID="P")
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n{in_table},benign\n", encoding="utf-8")
    assert hospital.take(tmp_path / "x", labels=table).labels == {"benign": 1}
    assert hospital.take(tmp_path / "x", labels=table).labels == {"benign": 1}


def test_capitals_tell_files_apart_where_there_are_both(hospital, tmp_path):
    for number, name in enumerate(("im1", "IM1")):
        write_dicom(tmp_path / "x" / name, blob(number), PatientID=name)
    if len(list((tmp_path / "x").iterdir())) < 2:
        pytest.skip("this disk takes them for the same")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nim1,benign\nIm1,malignant\n")
    found = hospital.take(tmp_path / "x", labels=table)
    assert found.labels == {"benign": 1}
    [note] = [note for note in found.notes if "of the labels" in note]
    assert note.startswith("1 line (3)") and "capitals or accents" in note


def test_of_many_lines_the_first_are_named(hospital, source, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("PatientID,label\n" + "nobody,benign\n" * 9)
    [note] = [n for n in hospital.take(source, labels=table).notes if "of the labels" in n]
    assert note.startswith("9 lines (2, 3, 4, 5, 6, …) of the labels")


def test_a_slice_that_is_named_is_taken_in_place_of_the_middle_one(hospital, tmp_path):
    for number in range(5):
        write_dicom(
            tmp_path / "x" / f"{number}",
            blob(number),
            SOPClassUID=CT,
            Modality="CT",
            PatientID="P",
            SOPInstanceUID=f"1.9.{number}",
            ImagePositionPatient=[0, 0, number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    table = tmp_path / "labels.csv"
    table.write_text("SOPInstanceUID,label\n1.9.4,malignant\n1.9.0,benign\n")
    assert hospital.take(tmp_path / "x", labels=table).labels == {"benign": 1, "malignant": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"label\nbenign\n", "line 1: no column says which picture is meant; name one file, Pat"),
        (b"PatientID,ward\n7,3\n", "line 1: no column `label`; columns found: PatientID, ward: n"),
        (
            b"PatientID,pid,label\n",
            "line 1: columns PatientID, pid mean the same; keep one of them",
        ),
        (b"PatientID,label\n7,a,b\n", "line 2: 3 fields for 2 columns; put fields that hold a com"),
        (b"PatientID,label,split\n7,a,x\n", "line 2: column split: is not one of train, test"),
        (b'PatientID,label\n"7,a', "line 2: not valid CSV: unexpected end of data"),
        (b"PatientID,label\n\xe4,a\n", "not UTF-8; save the file as CSV UTF-8"),
        (b"", "line 1: no column says which picture is meant"),
        (None, "labels cannot be read: No such file or directory; name a CSV file in --labels"),
    ],
)
def test_a_table_that_cannot_be_used(hospital, source, tmp_path, content, said):
    table = tmp_path / "labels.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(DataError) as error:
        hospital.take(source, labels=table)
    assert said in str(error.value) and str(error.value).startswith(f"{table}: ")
    assert not hospital.manifest.exists()
