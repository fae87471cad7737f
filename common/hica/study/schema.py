"""Study: everything the coordinator decides, as read from `study.toml`.

Every site can read the study before it joins; its hash is what a site approves.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from hica.study.sections import (
    AlignmentSection,
    CalibrationSection,
    ClassSection,
    FederationSection,
    ModelSection,
    PersonalSection,
    PretrainingSection,
    PrivacySection,
    RegionsSection,
    ReportsSection,
    Section,
    StudySection,
    TextSection,
)

MOST_ROUNDS = 100_000
"""Of all stages together: every step of a run is listed before it begins."""


def canonical_json(table: Mapping[str, Any]) -> str:
    """JSON with sorted keys and without spaces: of one table one text."""
    return json.dumps(table, sort_keys=True, separators=(",", ":"))


class Study(Section):
    """The whole of `study.toml`, resolved: every default written out."""

    study: StudySection
    model: ModelSection = ModelSection()
    classes: list[ClassSection] = Field(min_length=2)
    text: TextSection = TextSection()
    reports: ReportsSection = ReportsSection()
    pretraining: PretrainingSection = PretrainingSection()
    alignment: AlignmentSection = AlignmentSection()
    calibration: CalibrationSection = CalibrationSection()
    personal: PersonalSection = PersonalSection()
    regions: RegionsSection = RegionsSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [item.name for item in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"classes need different names, got {names}")
        return self

    @model_validator(mode="after")
    def _rounds_can_be_listed(self) -> Self:
        first = self.pretraining
        total = first.rounds * (1 + first.lloyd_rounds if first.recluster_every else 1)
        total += first.lloyd_rounds + self.alignment.rounds + self.calibration.rounds
        if total > MOST_ROUNDS:
            raise ValueError(
                f"the stages have {total:,} rounds together, the most is {MOST_ROUNDS:,}: lower "
                "rounds of pretraining, alignment or calibration, or pretraining.lloyd_rounds"
            )
        return self

    @model_validator(mode="after")
    def _privacy_is_whole(self) -> Self:
        """Whatever leaves in a private study must have a mechanism, or the study is refused."""
        privacy, alignment = self.privacy, self.alignment
        if privacy.noise == "distributed" and not privacy.secure_aggregation:
            raise ValueError(
                'privacy.noise = "distributed" hides a site in the sum only: set '
                'privacy.secure_aggregation = true, or noise = "local"'
            )
        if not privacy.is_private:
            return self
        missing = [name for name in ("epsilon", "delta") if getattr(privacy, name) is None]
        if missing:
            raise ValueError(
                f"privacy.mechanism = {privacy.mechanism!r} needs privacy.{missing[0]}, for "
                "example epsilon = 3.0 and delta = 1e-5; there is no safe default"
            )
        if alignment.contrast == "batch":
            raise ValueError(
                'alignment.contrast = "batch" makes the loss of one patient depend on others, '
                'which has no bounded gradient per patient: set contrast = "bank"'
            )
        if alignment.centring == "site":
            raise ValueError(
                "a site's own mean of its features would leave, hidden in the weights, without "
                'noise: set alignment.centring = "global" or "none"'
            )
        if alignment.scaling != "none":
            raise ValueError(
                "the spread of features is told by exact sums of squares: set "
                'alignment.scaling = "none" in a private study'
            )
        if alignment.label_propagation:
            raise ValueError(
                "labels that spread from patient to patient have no bounded effect of one: set "
                "alignment.label_propagation = false in a private study"
            )
        if self.calibration.rounds:
            raise ValueError(
                "intercepts are estimated from exact sums: set calibration.rounds = 0 in a "
                "private study"
            )
        if privacy.mechanism == "prototypes":
            if self.pretraining.rounds:
                raise ValueError(
                    'privacy.mechanism = "prototypes" trains nothing: set pretraining.rounds = 0, '
                    'or mechanism = "dp-sgd"'
                )
            if not alignment.starts_at_means:
                raise ValueError(
                    'privacy.mechanism = "prototypes" puts class means into the text bank: set '
                    'alignment.train_text_bank = true and alignment.bank_start = "prototypes"'
                )
        return self

    @model_validator(mode="after")
    def _can_be_summed_securely(self) -> Self:
        """Under secure aggregation nobody sees a single update: only rules that need none."""
        rule = self.federation.aggregation
        if not self.privacy.secure_aggregation:
            return self
        if rule not in ("mean", "adam", "yogi"):
            raise ValueError(
                f"federation.aggregation = {rule!r} compares single updates, which nobody sees "
                'under privacy.secure_aggregation: set aggregation = "mean", "adam" or "yogi"'
            )
        if self.model.train == "lora":
            raise ValueError(
                'model.train = "lora" is averaged over the factors of each site, which nobody sees '
                'under privacy.secure_aggregation: set train = "adapter", "last-1" or "full"'
            )
        return self

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of every label, logit and confusion matrix."""
        return [item.name for item in self.classes]

    @property
    def finding_names(self) -> list[str]:
        """Distinct findings over all classes, in order of first mention."""
        return list(dict.fromkeys(text for item in self.classes for text in item.findings))

    @property
    def report_findings(self) -> dict[str, list[str]]:
        """What is looked for in reports: texts by finding."""
        return self.reports.findings or {name: [name] for name in self.finding_names}

    @property
    def class_texts(self) -> list[tuple[str, list[str], list[str], bool]]:
        """Name, prompts, findings and healthiness of each class, as `hica.text.bank` takes them."""
        return [(item.name, item.prompts, item.findings, item.healthy) for item in self.classes]

    def canonical_json(self) -> str:
        """The resolved study as JSON with sorted keys: the text that is hashed and sent."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def sha256(self) -> str:
        """Hash of the resolved study; a site approves this."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()
