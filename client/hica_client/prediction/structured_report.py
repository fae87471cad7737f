"""A prediction as DICOM SR: a measurement report after template TID 1500.

Each class is a group of measurements (TID 1501): the class as its finding type, its probability,
and whether it is in question. One more group has the answer, its reason and what it is for.
Classes are codes of this program, `99HICA`, of which the report says which study they are of.
"""

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from hica_client.prediction.dicom_source import Source
from hica_client.prediction.predict import NO_CLASS, SEVERAL, TOO_FEW, UNLIKE, Prediction
from hica_client.prediction.provenance import MANUFACTURER, NOT_FOR_DIAGNOSIS, Provenance

SCHEME = "99HICA"
SERIES_NUMBER = 9001
SERIES_DESCRIPTION = "HiCA class probabilities, not for diagnosis"
PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")
YES, NO = CodedConcept("373066001", "SCT", "Yes"), CodedConcept("373067005", "SCT", "No")


def own(value: str, meaning: str) -> CodedConcept:
    """A code of this program."""
    return CodedConcept(value, SCHEME, meaning)


PROBABILITY = own("PROBABILITY", "Probability")
IN_QUESTION = own("IN_QUESTION", "In the set of classes in question")
ANSWER, REASON = own("ANSWER", "Answer"), own("REASON", "Reason for no answer, or caution")
USE, TRAINED = own("USE", "Intended use"), own("TRAINED", "The study was trained on this image")
RESEARCH = own("RESEARCH", NOT_FOR_DIAGNOSIS)
DONT_KNOW = own("UNKNOWN", "Don't know")
REASONS = {
    UNLIKE: own("UNLIKE", UNLIKE),
    NO_CLASS: own("NO_CLASS", NO_CLASS),
    SEVERAL: own("SEVERAL", SEVERAL),
    TOO_FEW: own("TOO_FEW", TOO_FEW),
}


def structured_report(
    source: Source, said: Prediction, made_by: Provenance, series_uid: str, number: int
) -> ComprehensiveSR:
    """The report of one image; patient and study are those of the image.

    `number` is that of the report in its series.
    """
    class_codes = {name: own(f"C{n + 1}", name) for n, name in enumerate(made_by.classes)}
    algorithm = AlgorithmIdentification(
        name=f"{MANUFACTURER}: {made_by.study}",
        version=made_by.version,
        parameters=made_by.parameters,
        manufacturer=MANUFACTURER,
    )
    frames = [source.frame] if source.frame else None
    image = SourceImageForMeasurementGroup(
        source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, frames
    )

    def group(
        of: str,
        finding: CodedConcept | None,
        measured: list[Measurement],
        found: list[tuple[CodedConcept, CodedConcept]],
    ) -> MeasurementsAndQualitativeEvaluations:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid=hd.UID(), identifier=of),
            finding_type=finding,
            algorithm_id=algorithm,
            measurements=measured,
            qualitative_evaluations=[QualitativeEvaluation(name, value) for name, value in found],
            source_images=[image],
        )

    answer = class_codes[said.answer] if said.answer else DONT_KNOW
    overall = [(ANSWER, answer), (USE, RESEARCH)]
    overall += [(REASON, REASONS[said.why])] if said.why else []
    overall += [(TRAINED, YES)] if said.learnt_from else []
    groups = [group("answer", None, [], overall)]
    for name, code in class_codes.items():
        share = Measurement(PROBABILITY, round(said.probabilities[name], 6), codes.UCUM.NoUnits)
        asked = [(IN_QUESTION, YES if name in said.classes else NO)] if said.classes else []
        groups.append(group(f"class {name}", code, [share], asked))
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                    uid=generate_uid(entropy_srcs=[made_by.model_sha256]),
                    name=MANUFACTURER,
                    manufacturer_name=MANUFACTURER,
                    model_name=made_by.study,
                    serial_number=made_by.model_sha256,
                ),
            )
        ),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
    )
    return ComprehensiveSR(
        evidence=[source.dataset],
        content=content,
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=made_by.version,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=SERIES_DESCRIPTION,
    )
