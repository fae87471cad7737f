import re

import pytest

from hica.errors import ConfigurationError
from hica.study import Study, validated
from hica_server.findings.random_words import random_findings

PRONOUNCEABLE = re.compile(r"([bdfgklmnprstvz][aeiou]){2,3}( ([bdfgklmnprstvz][aeiou]){2,3})*")


def test_there_are_as_many_phrases_and_words_as_curated_ones(study):
    findings = random_findings(study, 0)
    for item in study.classes:
        assert len(findings[item.name]) == len(item.findings)
        for curated, drawn in zip(item.findings, findings[item.name], strict=True):
            assert len(curated.split()) == len(drawn.split())
            assert PRONOUNCEABLE.fullmatch(drawn)


def test_the_seed_decides(study):
    assert random_findings(study, 1) == random_findings(study, 1)
    assert random_findings(study, 1) != random_findings(study, 2)


def test_who_shares_a_finding_stays_as_it_was(study):
    table = study.model_dump()
    table["classes"][2]["findings"].append(table["classes"][1]["findings"][0])
    drawn = random_findings(validated(Study, table, "study"), 0)
    assert drawn["malignant"][-1] == drawn["benign"][0]
    everything = {phrase for phrases in drawn.values() for phrase in phrases}
    assert len(everything) == len(study.finding_names)


def test_a_class_without_findings_is_named(study):
    table = study.model_dump()
    table["classes"][1]["findings"] = []
    with pytest.raises(ConfigurationError, match=r"'benign' has no findings .*--source template"):
        random_findings(validated(Study, table, "study"), 0)
