"""The findings of a DICOM structured report as plain sentences (PS3.3 C.17.3)."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

WORDS = ("TEXT", "CODE", "NUM")
"""Value types that are findings; references, dates, UIDs and persons are none."""
CONTEXT = range(121005, 121037)
"""DCM codes of who observed, of whom, in which order and by which device (PS3.16, TID 1001)."""
DEEPEST = 30
"""Containers in each other; a report has a handful."""


def report_text(data: Dataset) -> tuple[str, list[str]]:
    """The text of a report, and the persons that it names, who may stand in its text, too."""
    people: list[str] = []
    return " ".join(_sentences(data, people, 0)), people


def _sentences(data: Dataset, people: list[str], depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        return
    for item in data.get("ContentSequence") or ():
        kind = str(item.get("ValueType", ""))
        if kind == "PNAME":
            people.append(str(item.get("PersonName", "")))
            continue
        if _is_context(item):
            continue
        if kind in WORDS and (value := _value(item, kind)):
            concept = _meaning(item.get("ConceptNameCodeSequence"))
            sentence = f"{concept}: {value}" if concept else value
            yield sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
        yield from _sentences(item, people, depth + 1)


def _is_context(item: Dataset) -> bool:
    """Whether an item tells of persons, orders or devices, and of no finding."""
    name = next(iter(item.get("ConceptNameCodeSequence") or ()), Dataset())
    code = str(name.get("CodeValue", ""))
    return (
        str(name.get("CodingSchemeDesignator", "")) == "DCM"
        and code.isdigit()
        and int(code) in CONTEXT
    )


def _value(item: Dataset, kind: str) -> str:
    if kind == "TEXT":
        return str(item.get("TextValue", "")).strip()
    if kind == "CODE":
        return _meaning(item.get("ConceptCodeSequence"))
    measured = next(iter(item.get("MeasuredValueSequence") or ()), Dataset())
    unit = next(iter(measured.get("MeasurementUnitsCodeSequence") or ()), Dataset())
    return f"{measured.get('NumericValue', '')} {unit.get('CodeValue', '')}".strip()


def _meaning(codes: object) -> str:
    """What the first of some codes means."""
    first = next(iter(codes or ()), None)  # type: ignore[call-overload]
    return str(first.get("CodeMeaning", "")).strip() if first is not None else ""
