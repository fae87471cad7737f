"""What made a prediction, in words that go with it into another system."""

from dataclasses import dataclass

import hica
from hica.images.cache import file_sha256
from hica_client.prediction.models import SHARED
from hica_client.prediction.predict import Predictor

MANUFACTURER = "HiCA"
NOT_FOR_DIAGNOSIS = "For research, not for diagnosis"


@dataclass(frozen=True)
class Provenance:
    """What a predictor is made of.

    Attributes:
        study: Name of the study.
        study_sha256: Of the study.
        model_sha256: Of the file of the shared model.
        classes: The study's, in their order.
        parameters: Sentences on models, calibration and use.
    """

    study: str
    study_sha256: str
    model_sha256: str
    classes: tuple[str, ...]
    parameters: tuple[str, ...]

    @property
    def version(self) -> str:
        """Of program and model, short."""
        return f"{hica.__version__}, model {self.model_sha256[:12]}"


def provenance_of(predictor: Predictor) -> Provenance:
    """What stands behind all predictions of a predictor."""
    models, calibration = predictor.models, predictor.calibration
    words = [
        NOT_FOR_DIAGNOSIS,
        f"model SHA-256 {models.model_sha256}",
        f"study SHA-256 {models.study.sha256}",
    ]
    for name, weight in models.weights.items():
        own = models.session.state / f"{name}.safetensors"
        digest = "" if name == SHARED else f", SHA-256 {file_sha256(own)}"
        words.append(f"weight of the model {name!r}: {100 * weight:.0f} %{digest}")
    if predictor.held_out is None or calibration is None:
        words.append("probabilities are not calibrated: too few held-out patients")
    else:
        patients = f"{predictor.held_out.patients} held-out patients of this site"
        words.append(f"probabilities are calibrated on {patients}")
        if calibration.promises:
            share = f"{100 * calibration.coverage:.0f} %"
            words.append(
                f"classes in question hold the right one for {share} of patients like the "
                f"{patients}"
            )
    return Provenance(
        models.study.study.name,
        models.study.sha256,
        models.model_sha256,
        tuple(predictor.names),
        tuple(words),
    )
