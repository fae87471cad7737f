from pathlib import Path

import pytest

from hica.errors import DataError
from hica.images.columns import COLUMNS, has_image, read_columns


def columns(*header: str):
    return read_columns(Path("m.csv"), 1, header)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Label", "label"),
        ("LABEL ", "label"),
        ("label\u00a0", "label"),
        ("\ufefflabel", "label"),
        ("la\u200bbel", "label"),
        ("Patient ID", "patient_id"),
        ("patient\u00a0id", "patient_id"),
        ("PatientID", "patient_id"),
        ("patientid", "patient_id"),
        ("patient-id", "patient_id"),
        ("Mask", "mask"),
        ("dup group", "dup_group"),
    ],
)
def test_a_column_in_another_case_or_with_blanks_is_taken(written, meant):
    """`Label` was passed over without a word, and all images were unlabelled."""
    read = columns("image", written)
    assert read.names == ["image", meant]


def test_what_was_taken_and_what_is_not_read_is_told():
    read = columns("Image", "label", "Patient ID", "scanner", "age", "", "")
    assert read.notes == [
        "m.csv: columns taken: `Image` for `image`, `Patient ID` for `patient_id`",
        "m.csv: columns that are not read: scanner, age",
    ]
    assert columns(*COLUMNS).notes == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("patient", "patient_id"),
        ("Patients", "patient_id"),
        ("patient_ids", "patient_id"),
        ("lable", "label"),
        ("labels", "label"),
        ("masks", "mask"),
        ("spilt", "split"),
        ("finding", "findings"),
        ("reports", "report"),
    ],
)
def test_a_slip_of_the_pen_is_refused_where_the_column_is_absent(written, meant):
    words = rf"m\.csv: line 1: no column `{meant}`, but `{written}`, which is not read; name it"
    with pytest.raises(DataError, match=words):
        columns("image", written)
    assert columns("image", meant, written).names[2] == written


@pytest.mark.parametrize(
    ("written", "meant"),
    [("class", "label"), ("Diagnosis", "label"), ("fold", "split"), ("subject", "patient_id")],
)
def test_a_name_that_may_mean_a_column_is_told(written, meant):
    told = f"no column `{meant}`, and `{written}` is not read: if it is that, name it `{meant}`"
    assert told in columns("image", written).notes[1]
    assert len(columns("image", meant, written).notes) == 1


@pytest.mark.parametrize("written", ["reporter", "table", "task", "site", "age", "source", "view"])
def test_other_columns_are_no_slips(written):
    assert columns("image", written).names == ["image", written]


@pytest.mark.parametrize("written", ["filename", "Path", "images", "imgae"])
def test_without_images_the_likely_column_is_named(written):
    with pytest.raises(
        DataError, match=rf"no column `image`; .*: name `{written}`, if that is the"
    ):
        columns(written, "label")


def test_two_columns_of_one_name_are_refused_and_unknown_ones_are_not():
    with pytest.raises(
        DataError, match="2 columns are named patient_id: `patient_id`, `PatientID`"
    ):
        columns("image", "patient_id", "PatientID")
    assert columns("image", "note", "note").names == ["image", "note", "note"]


def test_where_the_fields_are_apart_is_told_by_the_name_image():
    assert has_image(["label", '"Image"']) and not has_image(["image;label"])
