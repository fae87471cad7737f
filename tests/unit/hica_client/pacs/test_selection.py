from datetime import date

import pytest

from hica.errors import DataError
from hica_client.pacs.cases import read_cases
from hica_client.pacs.selection import Case, Query, Selection, uid_of


def asked(selection):
    return [dict(query.keys) for query in selection.queries()]


def test_one_question_for_each_modality_and_case():
    cases = (Case(2, patient_id="A"), Case(3, accession_number="B"))
    days = date(2024, 1, 2), date(2024, 3, 4)
    questions = asked(Selection(*days, modalities=("US", "MG"), cases=cases))
    assert len(questions) == 4
    assert questions[0] == {
        "StudyDate": "20240102-20240304",
        "ModalitiesInStudy": "US",
        "PatientID": "A",
    }
    assert questions[3]["AccessionNumber"] == "B"
    assert asked(Selection(first=days[0]))[0]["StudyDate"] == "20240102-"
    assert asked(Selection(last=days[1]))[0]["StudyDate"] == "-20240304"


@pytest.mark.parametrize(
    ("keys", "study", "fits"),
    [
        ({"StudyDate": "20240102-20240304"}, {"StudyDate": "20240102"}, True),
        ({"StudyDate": "20240102-20240304"}, {"StudyDate": "2024.03.04"}, True),
        ({"StudyDate": "20240102-20240304"}, {"StudyDate": "20240305"}, False),
        ({"StudyDate": "20240102-"}, {"StudyDate": ""}, False),
        ({"StudyDate": "20240102-"}, {}, False),
        ({"ModalitiesInStudy": "US"}, {"ModalitiesInStudy": "SR\\US"}, True),
        ({"ModalitiesInStudy": "US"}, {"ModalitiesInStudy": "IVUS"}, False),
        ({"ModalitiesInStudy": "US"}, {}, True),
        ({"PatientID": "7"}, {"PatientID": "7 "}, True),
        ({"PatientID": "7"}, {"PatientID": "77"}, False),
        ({"PatientID": "7"}, {}, False),
        ({"AccessionNumber": "7"}, {"AccessionNumber": ""}, False),
    ],
)
def test_an_answer_is_compared_with_the_question(keys, study, fits):
    assert Query(keys).matches(study) is fits


@pytest.mark.parametrize(
    ("pattern", "study", "fits"),
    [
        ("*breast*", {"StudyDescription": "US Breast li."}, True),
        ("breast", {"StudyDescription": "US Breast"}, False),
        ("a[bc]?", {"StudyDescription": "A[BC]x"}, True),
        ("*", {}, True),
        ("?*", {"StudyDescription": " "}, False),
        ("", {}, True),
    ],
)
def test_descriptions_are_patterns(pattern, study, fits):
    selection = Selection(study_description=pattern)
    assert selection.describes(study) is fits
    assert asked(selection) == [{}], "the PACS is not asked to match on it"


def test_series_are_of_the_modalities_and_the_description():
    selection = Selection(modalities=("US",), also=("SR",), series_description="*long*")
    assert selection.takes({"Modality": "US", "SeriesDescription": "Longitudinal"})
    assert selection.takes({"Modality": "SR", "SeriesDescription": "long"})
    assert not selection.takes({"Modality": "CT", "SeriesDescription": "long"})
    assert not selection.takes({"Modality": "US", "SeriesDescription": "axial"})
    assert Selection().takes({})


@pytest.mark.parametrize("uid", ["", "..", "1/2", "1?x", "1\\2", "1*", "x" * 129])
def test_what_would_mean_more_than_a_uid_is_none(uid):
    assert uid_of({"StudyInstanceUID": uid}, "StudyInstanceUID") is None


def test_identifiers_are_not_shown_by_accident():
    case = Case(2, patient_id="SECRET", accession_number="SECRET")
    selection = Selection(cases=(case,))
    for thing in (case, selection, next(selection.queries()), selection.to_dict()):
        assert "SECRET" not in repr(thing)


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("patient_id\n007\n", [Case(2, "007")]),
        ("PatientID;x\n1;y\n\n1;z\n", [Case(2, "1")]),
        ("Accession Number\tpatient_id\nA\t1\n\t2\n", [Case(2, "1", "A"), Case(3, "2", "")]),
        ("\ufeffpatient_id\r\n1\r\n", [Case(2, "1")]),
    ],
)
def test_lists_of_cases(tmp_path, text, cases):
    file = tmp_path / "cases.csv"
    file.write_text(text, newline="")
    assert list(read_cases(file)) == cases


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"1\n2\n", "names neither column patient_id nor accession_number"),
        (b"", "names neither column"),
        (b"patient_id\n\n", "no cases below the heading"),
        (b"patient_id\nA*\n", "line 2: a value with"),
        (b"patient_id\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_has_its_sentence(tmp_path, content, words):
    file = tmp_path / "cases.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        read_cases(file)
    assert "A*" not in str(raised.value)
