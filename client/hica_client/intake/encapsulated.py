"""The text of a document that is encapsulated in DICOM: plain text, and the body of a CDA."""

import re
from xml.etree import ElementTree

from pydicom.dataset import Dataset

MOST_BYTES = 10_000_000
"""Of a file whose document is read."""


def document_text(data: Dataset) -> str:
    """The text; empty where there is none that can be read.

    Of a CDA (HL7 Clinical Document Architecture) it is the sections of the body: its head names
    patient, authors and orders.
    """
    kind = str(data.get("MIMETypeOfEncapsulatedDocument", "")).strip().lower()
    content = bytes(data.get("EncapsulatedDocument") or b"").rstrip(b"\0")
    if kind == "text/plain":
        return content.decode(errors="replace").strip()
    if kind not in ("text/xml", "application/xml") or b"<!ENTITY" in content:
        return ""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return ""
    texts = root.findall(".//{*}structuredBody//{*}section/{*}text")
    words = " ".join(" ".join(text.itertext()) for text in texts).split()
    return re.sub(r" ([.,;:])", r"\1", " ".join(words))
