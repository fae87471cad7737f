"""The model card: what the model is of, what it is worth where, what it costs, what it is not for.

`facts` of an `Exported` are from who exports: `exported_by`, `model` (which one, in words),
`made`, `data` and `measured` (a row a site), `versions`; and where there are any `approvals`,
`audit` (names of files beside), `warnings`, `is_personal` (learnt at one site, without protection).
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hica.export.classifier import Exported
from hica.printable import percent, plain
from hica.study import Study

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
ACCOUNTANT = (
    "Rényi differential privacy of the sampled Gaussian mechanism (Mironov, Talwar, Zhang 2019), "
    "composed over all releases of a site, as computed by Opacus"
)
USE = (
    "Research on images like those it was learnt from. It is no medical device. A person who can "
    "read such images decides, and looks at every answer."
)


def card_of(exported: Exported) -> dict[str, Any]:
    """`model_card.json`: all that the card says."""
    study, classifier, facts = exported.study, exported.classifier, exported.facts
    return {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "modality": study.study.modality,
        "exported_by": facts["exported_by"],
        "model": facts["model"],
        "made": facts["made"],
        "intended_use": USE,
        "warnings": facts.get("warnings", []),
        "limits": limits_of(exported),
        "classes": exported.classes,
        "findings": exported.findings,
        "tower": {
            "image": study.model.image,
            "trained": study.model.train,
            "weights_sha256": study.model.sha256,
            "fingerprint_before_training": classifier.tower.fingerprint,
        },
        "preprocess": asdict(classifier.preprocess),
        "temperature": classifier.temperature,
        "intercepts": classifier.bias.tolist(),
        "views": 2 if classifier.mirrored else 1,
        "data": facts.get("data", {}),
        "measured": facts.get("measured", []),
        "privacy": privacy_of(study, facts.get("is_personal", False)),
        "approvals": facts.get("approvals", []),
        "leakage_audit": facts.get("audit", []),
        "not_here": exported.left_out,
        "versions": facts.get("versions", {}),
    }


def privacy_of(study: Study, is_personal: bool) -> dict[str, Any]:
    """What is promised to a patient whose images were learnt from, and by which reckoning."""
    privacy = study.privacy
    found: dict[str, Any] = {
        "differential_privacy": privacy.is_private and not is_personal,
        "secure_aggregation": privacy.secure_aggregation and not is_personal,
    }
    if not found["differential_privacy"]:
        return found
    return found | {
        "mechanism": privacy.mechanism,
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "unit": privacy.unit,
        "accountant": ACCOUNTANT,
    }


def limits_of(exported: Exported) -> list[str]:
    """Sentences on where the forms differ from HiCA's own prediction, and what is not known."""
    alignment, classifier = exported.study.alignment, exported.classifier
    limits = [
        "It was measured on images of the hospitals named below only. Elsewhere it may do worse "
        "without a sign.",
        "Its probabilities are not calibrated for another hospital, and every image gets an "
        "answer, also one of another kind. `hica-client predict` calibrates on a hospital's own "
        "images and can say that it does not know.",
        "It names the classes below only. The text side of `open_clip/` knows the study's own "
        "texts, and gives zeros for any other.",
    ]
    if classifier.mirrored:
        limits.append(
            "HiCA averages the embeddings of an image and of its mirror image. `onnx/` and "
            "`monai_bundle/` do so, too; with `open_clip/` and `hugging_face/` the reader does it, "
            "as their README.md shows."
        )
    if alignment.region_blend:
        limits.append(
            f"In HiCA's own predictions the regions of an image count for "
            f"{alignment.region_blend:.0%}. They are not in these forms, whose logits are those of "
            "the whole image: the metrics below are not theirs."
        )
    if alignment.region_view:
        limits.append(
            "HiCA also looks at an image cut to its largest region. These forms do not: the "
            "metrics below are not theirs."
        )
    if alignment.centring == "site":
        limits.append(
            "Every hospital of the study takes off the mean of its own features. In a folder of "
            "the coordinator it is the mean over all: at each hospital HiCA's logits are others."
        )
    if exported.study.personal.epochs:
        limits.append(
            "A hospital of the study predicts with this model and two of its own, which it keeps; "
            "the metrics below are of what it predicts with."
        )
    if exported.study.model.train not in ("full", "lora"):
        limits.append(
            "HiCA keeps what the frozen part of the tower gives in 16 bits; its logits at a "
            "hospital differ from these by that rounding (0.0002 in a study of chest X-rays)."
        )
    return limits


def write_text(path: Path, card: Mapping[str, Any]) -> None:
    """`model_card.md`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=cell, percent=percent)
    text = environment.get_template("card.md").render(card=card, metrics=METRICS)
    path.write_text(text, encoding="utf-8")


def cell(value: object) -> str:
    """A value in a table of Markdown: what came from elsewhere breaks no row and starts no HTML."""
    text = plain(str(value)).replace("\n", " ")
    for character in "\\|`<>[]*_":
        text = text.replace(character, f"\\{character}")
    return text
