import os
from pathlib import Path

import pytest
from PIL import Image
from tests.unit.hica.images.test_sniff import CASES, dicom, written

from hica.errors import DataError
from hica.images.folders import records_from_folders


def image(path: Path, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path, kind)


def test_images_are_labelled_by_their_folder_in_the_order_of_names(tmp_path):
    for name in ("benign/2.PNG", "benign/1.png", "malignant/deep/1.jpg"):
        image(tmp_path / name)
    found = records_from_folders(tmp_path)
    assert [(record.label, record.name) for record in found.records] == [
        ("benign", "benign/1.png"),
        ("benign", "benign/2.PNG"),
        ("malignant", "malignant/deep/1.jpg"),
    ]
    assert len({record.group for record in found.records}) == 3
    assert found.notes == []


def test_files_are_taken_by_their_content_whatever_their_name(tmp_path):
    """`IM000001` was passed over without a word."""
    (tmp_path / "benign").mkdir()
    for name in ("IM000001", "1.2.840.113619.2.5", "c.ima", "D.IMA", "e.DCM", "IMG.0001"):
        written(dicom(), tmp_path / "benign" / name)
    image(tmp_path / "benign" / "scan")
    (tmp_path / "benign" / "cut.png").write_bytes(b"")  # `check` says what is wrong with it
    assert len(records_from_folders(tmp_path).records) == 8


def test_what_is_passed_over_is_counted_with_the_reason(tmp_path):
    """`__MACOSX` was taken for a class."""
    image(tmp_path / "benign" / "a.png")
    image(tmp_path / "benign" / "._a.png")
    image(tmp_path / ".thumbnails" / "a.png")
    image(tmp_path / "__MACOSX" / "benign" / "a.png")
    image(tmp_path / "loose.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "notes.txt", "list.csv"):
        (tmp_path / "benign" / name).write_text("image,label")
    written(dicom(pixels=False), tmp_path / "benign" / "report.dcm")
    (tmp_path / "linked").symlink_to(tmp_path / "benign")
    found = records_from_folders(tmp_path)
    assert [record.name for record in found.records] == ["benign/a.png"]
    assert sorted(found.notes) == [
        "passed over: 1 (DICOM without a picture, such as a DICOMDIR or a report): "
        "benign/report.dcm",
        "passed over: 1 (a link to another folder): linked/ with 8 files",
        "passed over: 1 (in no folder of a class): loose.png",
        "passed over: 2 (no image, by their content): benign/list.csv, benign/notes.txt",
        "passed over: 3 (hidden: the name begins with a dot): .thumbnails/ with 1 files, "
        "benign/.DS_Store, benign/._a.png",
        "passed over: 3 (left by an operating system): __MACOSX/ with 1 files, "
        "benign/Thumbs.db, benign/desktop.ini",
    ]


def test_a_folder_without_images_says_what_was_passed_over(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "all.zip").write_bytes(b"PK\x03\x04")
    words = r"no images found; expected one folder per class.*passed over: 1 \(no image.*all\.zip"
    with pytest.raises(DataError, match=words):
        records_from_folders(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_told(tmp_path):
    image(tmp_path / "benign" / "a.png")
    image(tmp_path / "closed" / "a.png")
    (tmp_path / "closed").chmod(0)
    assert records_from_folders(tmp_path).notes == [
        "passed over: 1 (cannot be read by this user): closed/"
    ]


@pytest.mark.real_data
@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is absent")
def test_the_export_of_the_cases_has_two_classes():
    found = records_from_folders(CASES / "folder")
    assert {record.label for record in found.records} == {"benign", "malignant"}
    assert {name.split("/")[0] for names in found.passed_over.values() for name in names} == {
        "__MACOSX",
        "benign",
    }
    assert len(found.records) == 6
