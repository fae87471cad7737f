"""Descriptors: where the findings come from, and whether it matters what they say.

Another list, for example one that a language model has drafted, is compared by a study file of its
own: `hica-server findings draft` and, once it has been read, `findings apply STUDY FILE --out NEW`
give one, whose `study.name` is then changed. Both files are named to the table, which has lines for
each study.
"""

from collections.abc import Mapping

from hica_server.findings.random_words import random_findings
from hica_server.findings.template import template_findings
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.experiments.tables.texts import with_findings, without_findings
from hica_simulations.scenario import Scenario

CURATED = "curated"


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """The study's own findings; templates; random words, drawn from its seed; none.

    Raises:
        ConfigurationError: A class without findings, whose number random words could copy.
    """
    study, simulation = scenario.study, scenario.simulation
    texts = {
        "templates": with_findings(study.classes, template_findings(study)),
        "random words": with_findings(study.classes, random_findings(study, study.study.seed)),
        "none": without_findings(study.classes),
    }
    others = {name: Variant(other.changes(simulation)) for name, other in texts.items()}
    return {CURATED: Variant(), **others}


TABLE = Comparison(
    title="Where the findings come from",
    reference=CURATED,
    variants=variants,
    remark=(
        "Only curated findings can be named by a manifest: in the other lines every image of a "
        "class has all findings of that class. Random words are drawn anew with every seed."
    ),
)
cells, write = TABLE.cells, TABLE.write
