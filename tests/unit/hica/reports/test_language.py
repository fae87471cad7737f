"""Only English reports are read."""

import pytest

from hica.reports.language import is_english


@pytest.mark.parametrize(
    "report",
    ["Cardiomegaly.", "Bilateral pulmonary tuberculosis.", "Lungs clear. XXXX heart normal."],
)
def test_english_and_what_is_too_short_to_tell(report):
    assert is_english(report)


@pytest.mark.parametrize(
    "report",
    [
        "Herz normal groß. Kein Pneumothorax.",
        "Silueta cardíaca normal. No se observa derrame pleural.",
        "Poumons clairs. Pas d'épanchement pleural.",
        "正常胸片",
    ],
)
def test_other_languages(report):
    assert not is_english(report)
