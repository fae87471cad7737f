"""Results of a search in DICOM JSON (PS3.18 F.2)."""

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import tag_for_keyword

from hica_client.pacs.selection import Attributes


def attributes_of(item: Mapping[str, Any], keywords: tuple[str, ...]) -> Attributes:
    """What a result says."""
    said = {}
    for keyword in keywords:
        element = item.get(f"{tag_for_keyword(keyword):08X}")
        if isinstance(element, dict):
            values = element.get("Value")
            values = values if isinstance(values, list) else []
            said[keyword] = "\\".join(str(value) for value in values if value is not None)
    return said
