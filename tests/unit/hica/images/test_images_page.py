"""docs/images.md says what is so."""

from pathlib import Path

import pytest
from tests.unit.hica.images.page import FORMATS, PLACE, SHIPPED, SYNTAXES, with_tables
from tests.unit.hica.images.shipped import ROOTS

PAGE = (Path(__file__).parents[4] / "docs" / "images.md").read_text(encoding="utf-8")


def test_formats_are_as_they_are_read():
    assert with_tables(PAGE, [FORMATS]) == PAGE
    assert [name for _, name, _ in PLACE.findall(PAGE)] == [FORMATS, SYNTAXES, SHIPPED]


@pytest.mark.matrix
@pytest.mark.skipif("pydicom-data" not in ROOTS, reason="pydicom-data is not installed")
def test_shipped_files_are_as_they_are_read():
    assert with_tables(PAGE, [SYNTAXES, SHIPPED]) == PAGE
