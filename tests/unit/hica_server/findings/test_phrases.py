import pytest

from hica_server.findings.phrases import LONGEST, problem


@pytest.mark.parametrize(
    "phrase",
    ["oval shape", "B-lines", "not parallel orientation", "Cooper's ligaments", "mass (3D)"],
)
def test_a_phrase_in_words_is_a_finding(phrase):
    assert problem(phrase) == ""


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("oval\nshape", "control or invisible"),
        ("oval\x1b[31m shape", "control or invisible"),
        ("oval\u200b shape", "control or invisible"),
        (" oval shape", "blank at an end"),
        ("oval  shape", "two in a row"),
        ("oval\u00a0shape", "blank at an end"),
        ("oval|round", "separates findings in a manifest"),
        ("x" * (LONGEST + 1), f"101 characters, more than {LONGEST}"),
    ],
)
def test_what_a_manifest_could_not_name_is_none(phrase, said):
    assert said in problem(phrase)
