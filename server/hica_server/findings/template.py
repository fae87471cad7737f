"""Findings from templates: the weakest source.

They say of a class no more than its name, so a region is pulled to the name of its class in other
words. Good for a first run where nobody has described the classes, and as a lower bound.
"""

from hica.study import Study
from hica_server.findings.draft import Findings

ASPECTS = ("shape", "margin", "texture", "location")
"""What radiological lexicons describe a lesion by (BI-RADS, 5th edition, 2013)."""


def template_findings(study: Study) -> Findings:
    """`shape of benign in breast ultrasound`, and so on for each aspect and class."""
    place = f" in {study.study.modality}" if study.study.modality else ""
    return {
        name: [f"{aspect} of {name}{place}" for aspect in ASPECTS] for name in study.class_names
    }
