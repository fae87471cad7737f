"""Which phrases of a sentence are affirmed, denied or uncertain; what of a report is read."""

import pytest

from hica.reports.sentences import MOST_CHARACTERS, is_cut, sentences, without_placeholders
from hica.reports.standing import Standing, calls_all_normal, phrases


def standing_of(report: str, words: str) -> Standing:
    found = [
        phrase.standing
        for sentence in sentences(report)
        for phrase in phrases(report, sentence)
        if words in report[phrase.span.start : phrase.span.end]
    ]
    assert found and len(set(found)) == 1
    return found[0]


@pytest.mark.parametrize(
    ("report", "words", "expected"),
    [
        ("There is a small effusion.", "effusion", "affirmed"),
        ("No pneumothorax, effusion or edema.", "edema", "denied"),
        ("The lungs are clear without effusion.", "effusion", "denied"),
        ("No effusion but a small nodule.", "nodule", "affirmed"),
        ("No change in the left effusion.", "effusion", "affirmed"),
        ("Pneumothorax is not seen.", "Pneumothorax", "denied"),
        ("The heart is not enlarged.", "heart", "denied"),
        ("Heart size is normal with a large effusion.", "effusion", "affirmed"),
        ("Cannot exclude pneumonia.", "pneumonia", "uncertain"),
        ("Opacity, which may represent pneumonia.", "pneumonia", "uncertain"),
        ("Opacity may be due to infiltrate.", "infiltrate", "uncertain"),
        ("Heart size at the upper limits of normal.", "Heart", "uncertain"),
        ("INDICATION: rule out fracture. FINDINGS: Nodule.", "Nodule", "affirmed"),
    ],
)
def test_a_trigger_holds_as_far_as_its_scope(report, words, expected):
    assert standing_of(report, words) == expected


def test_what_asks_or_compares_is_not_read():
    report = "INDICATION: fracture\nCOMPARISON: effusion\nFINDINGS: Nodule. IMPRESSION: Mass."
    read = [report[start:end].strip() for start, end in sentences(report)]
    assert read == ["Nodule", "Mass"]


def test_placeholders_are_no_words():
    assert without_placeholders("XXXX effusion [**Name**] ___ small") == "effusion small"


def test_a_very_long_report_is_cut():
    report = "effusion " * 10_000
    read = sentences(report)
    assert is_cut(report)
    assert read[-1].end <= MOST_CHARACTERS
    assert max(len(report[start:end].split()) for start, end in read) <= 60
    assert sentences("") == []


def test_no_acute_disease_leaves_old_ones():
    assert calls_all_normal("Normal chest x-XXXX")
    assert not calls_all_normal("No acute cardiopulmonary disease")
    assert not calls_all_normal("Normal heart size and a large effusion")
