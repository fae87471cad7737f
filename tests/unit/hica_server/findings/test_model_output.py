import pytest

from hica_server.findings.model_output import read_output


@pytest.mark.parametrize(
    "line",
    [
        "oval shape",
        "- oval shape",
        "* Oval shape.",
        "• oval  shape;",
        "1. oval shape",
        "12) oval shape",
        "(3) Oval shape,",
        "a) oval shape",
        "- 1. oval shape",
        "**Oval shape**",
        "1. **Oval shape**: the mass is wider than tall",
        "2. Oval shape - wider than tall, as fibroadenomas are",
        "- Oval shape – wider than tall",
        '"oval shape"',
        "“Oval shape”",
        "'oval shape'",
        "`oval shape`",
        "> oval shape",
    ],
)
def test_bullets_numbers_quotes_and_explanations_are_taken_off(line):
    assert read_output(line, 9) == (["oval shape"], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("- no calcifications", "absent"),
        ("mass without a halo", "absent"),
        ("Absence of shadowing", "absent"),
        ("absent shadowing", "absent"),
        ("lack of a capsule", "absent"),
        ("lesion lacking a border", "absent"),
        ("calcifications not seen", "absent"),
        ("Here are the findings:", "heading"),
        ("### Benign masses", "heading"),
        ("Shape: oval", "heading"),
        ("**Shape:** oval", "heading"),
        ("Sure, here you go!", "sentence"),
        ("Would you like more?", "sentence"),
        ("It is oval. It is smooth.", "sentence"),
        ("these are the findings that a radiologist would name here", "more than 8 words"),
        ("x" * 101, "more than 100"),
        ("oval\u200b shape", "invisible"),
        ("oval | round", "manifest"),
        ("3 x 4", "no word"),
    ],
)
def test_what_is_no_finding_is_left_out_with_a_reason(line, reason):
    findings, [(said, why)] = read_output(line, 9)
    assert findings == []
    assert said == line
    assert reason in why


@pytest.mark.parametrize(
    "phrase",
    ["not parallel orientation", "nodular opacity", "cooper's ligaments", "1.5 cm mass", "b-lines"],
)
def test_a_finding_that_only_looks_like_one_of_those_is_kept(phrase):
    assert read_output(f"- {phrase}", 9).findings == [phrase]


def test_an_answer_with_prose_around_its_list():
    text = """Sure! Here are some findings of a benign mass:

1. Oval shape
2. "Circumscribed margin"
3. No posterior shadowing
4. oval shape

Please note that these are only typical, and that a biopsy may be needed.
"""
    findings, left_out = read_output(text, 9)
    assert findings == ["oval shape", "circumscribed margin"]
    reasons = [reason for _, reason in left_out]
    assert reasons[1:3] == ["names what is absent", "is there already"]
    assert len(reasons) == 4


def test_no_more_are_kept_than_were_asked_for():
    findings, left_out = read_output("oval\nround\nangular", 2)
    assert findings == ["oval", "round"]
    assert left_out == [("angular", "comes after the 2 that were asked for")]


def test_thoughts_are_passed_over():
    assert read_output("<think>\nan oval\n</think>\nround shape", 9) == (["round shape"], [])
    assert read_output("<think>\nan oval that was cut", 9) == ([], [])


def test_blank_lines_are_nothing():
    assert read_output("\n  \n - \n", 9) == ([], [])
