"""Findings of reports, without their context."""

import tracemalloc

import pytest
from pydicom.dataset import Dataset
from tests.unit.hica_client.intake.exports import (
    FINDING,
    OBSERVER,
    SUBJECT,
    code,
    content,
    finding,
    write_dicom,
)

from hica_client.intake import reasons
from hica_client.intake.dicom import read_header
from hica_client.intake.encapsulated import document_text
from hica_client.intake.structured_report import DEEPEST, report_text


def report(*items: Dataset) -> Dataset:
    data = Dataset()
    data.ContentSequence = list(items)
    return data


def test_text_codes_and_numbers_with_what_they_are_of():
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12", code("mm", "UCUM", "mm")
    said = report_text(
        report(
            content("CONTAINER", FINDING, ContentSequence=[finding("A mass")]),
            content("CODE", code("1", "X", "Side"), ConceptCodeSequence=code("2", "X", "left")),
            content("NUM", code("3", "X", "Size"), MeasuredValueSequence=[measured]),
            content("NUM", code("3", "X", "Size"), MeasuredValueSequence=[]),
        )
    )
    assert said == ("Finding: A mass. Side: left. Size: 12 mm.", [])


def test_persons_references_and_context_are_left_out():
    inner = [finding("His name")]
    text, people = report_text(
        report(
            content("PNAME", OBSERVER, PersonName="Reader^R"),
            content("TEXT", SUBJECT, TextValue="4711", ContentSequence=inner),
            content("UIDREF", FINDING, UID="1.2.3"),
            content("DATE", FINDING, Date="20240101"),
            finding("Clear."),
        )
    )
    assert (text, people) == ("Finding: Clear.", ["Reader^R"])


def test_a_report_without_end_ends():
    item = finding("deep")
    for _ in range(2 * DEEPEST):
        item = content("CONTAINER", FINDING, ContentSequence=[item])
    assert report_text(report(item, finding("flat")))[0] == "Finding: flat."


CDA = b"""<ClinicalDocument xmlns="urn:hl7-org:v3"><recordTarget>Sentinela</recordTarget>
<component><structuredBody><component><section><title>Findings</title>
<text>A <b>mass</b>.</text></section></component></structuredBody></component>
</ClinicalDocument>"""


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("text/plain", b"A mass.\0", "A mass."),
        ("text/XML", CDA, "A mass."),
        ("text/xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", ""),
        ("text/xml", b"<not closed", ""),
        ("application/pdf", b"%PDF", ""),
    ],
    ids=["plain", "cda", "entity", "broken", "pdf"],
)
def test_encapsulated_documents(kind, data, text):
    document = Dataset()
    document.MIMETypeOfEncapsulatedDocument, document.EncapsulatedDocument = kind, data
    assert document_text(document) == text


def test_the_text_of_an_encapsulated_document_is_read_from_its_file(tmp_path):
    path = write_dicom(
        tmp_path / "x",
        None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.104.2",
        EncapsulatedDocument=b"Mrs. Sentinela: a mass.",
        MIMETypeOfEncapsulatedDocument="text/plain",
        PatientName="Sentinela^B",
    )
    assert read_header(path).text == "Mrs. [removed]: a mass."


def test_a_large_document_is_not_read_into_memory(tmp_path):
    path = write_dicom(
        tmp_path / "x",
        None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.104.2",
        EncapsulatedDocument=b"text " * 5_000_000,
        MIMETypeOfEncapsulatedDocument="text/plain",
    )
    tracemalloc.start()
    header = read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (header.text, header.reason) == ("", reasons.DOCUMENT) and peak < 5_000_000
