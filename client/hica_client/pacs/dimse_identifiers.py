"""What is asked of a DICOM node, and what it answers: the identifiers of its messages (PS3.4 C)."""

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from hica_client.pacs.selection import Attributes

UTF_8 = "ISO_IR 192"


def identifier_of(level: str, keys: Mapping[str, str]) -> Dataset:
    """What a request asks for."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = UTF_8
    for keyword, value in keys.items():
        setattr(identifier, keyword, value.split("\\") if "\\" in value else value)
    return identifier


def attributes_of(found: Dataset, keywords: tuple[str, ...]) -> Attributes:
    """What an answer says; a value that cannot be read is taken for an empty one."""
    said = {}
    for keyword in keywords:
        if keyword in found:
            try:
                value = found[keyword].value
            except Exception:  # whatever pydicom's converters trip over
                value = None
            values = [value] if value is None or isinstance(value, str) else value
            values = values if isinstance(values, MultiValue | list) else [values]
            said[keyword] = "\\".join(str(each) for each in values if each is not None)
    return said
