"""A draft from one of the sources that need nobody to write it."""

import datetime
from typing import Literal

from hica.errors import ConfigurationError
from hica.study import Study
from hica_server.findings.draft import Draft, Findings, Source
from hica_server.findings.random_words import random_findings
from hica_server.findings.template import template_findings

Kind = Literal["template", "language-model", "random"]
LeftOut = dict[str, list[tuple[str, str]]]
"""Class name → lines of a model's answer that are no findings, each with the reason."""


def propose(
    study: Study, kind: Kind, model: str | None, seed: int | None, hubs: bool = False
) -> tuple[Draft, LeftOut]:
    """Findings for every class of a study, not yet read by anybody.

    `model` is the folder or name of a language model, for that source only; by its name it may be
    fetched from a hub if `hubs` says so. Without `seed`, random
    words take the study's, and a language model takes the likeliest token each time.

    Raises:
        CheckpointError: The model is missing or cannot be used.
        ConfigurationError: A model that is missing or not wanted, or a source that gave nothing.
    """
    if (kind == "language-model") != (model is not None):
        raise ConfigurationError(
            "--source language-model and --model FOLDER_OR_NAME belong together: give both or none"
        )
    today = datetime.datetime.now(datetime.UTC).date()
    if kind == "template":
        return Draft.of(Source(kind=kind, date=today), template_findings(study)), {}
    if kind == "random":
        seed = study.study.seed if seed is None else seed
        return Draft.of(Source(kind=kind, seed=seed, date=today), random_findings(study, seed)), {}
    from hica_server.findings.language_model import PROMPT, LanguageModel

    asked = LanguageModel(model or "", hubs)
    outputs = asked.findings(study, seed)
    findings: Findings = {name: output.findings for name, output in outputs.items()}
    source = Source(
        kind=kind, model=asked.name, sha256=asked.sha256, prompt=PROMPT, seed=seed, date=today
    )
    return Draft.of(source, findings), {name: out.left_out for name, out in outputs.items()}
