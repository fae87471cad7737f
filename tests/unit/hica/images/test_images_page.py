"""docs/images.md says what is so."""

from pathlib import Path

import pytest
from tests.unit.hica.images import page
from tests.unit.hica.images.shipped import ROOTS

PAGE = Path(__file__).parents[4] / "docs" / "images.md"


@pytest.mark.skipif("pydicom-data" not in ROOTS, reason="pydicom-data is not installed")
def test_the_page_is_as_the_files_are_read():
    text = PAGE.read_text(encoding="utf-8")
    assert page.with_tables(text) == text
    assert {name for _, name, _ in page.PLACE.findall(text)} == {
        page.FORMATS, page.SYNTAXES, page.SHIPPED
    }  # fmt: skip
