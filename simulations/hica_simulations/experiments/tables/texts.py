"""Other texts for the classes of a study: damaged ones, or none.

What is drawn depends on the seed and on the text itself, so that a sentence that two classes share
is damaged once.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hica.seeds import derived_seed
from hica.study import Changes
from hica.study.sections import ClassSection
from hica_simulations.scenario import Simulation, Translation

Classes = Sequence[ClassSection]


class Texts(NamedTuple):
    """The classes of a study with other texts.

    Attributes:
        classes: In their order, with their names; a healthy class stays one.
        findings: What each finding of the study is called now; one that is gone is missing.
    """

    classes: list[ClassSection]
    findings: dict[str, str]

    def changes(self, simulation: Simulation) -> Changes:
        """Puts the texts into a scenario, and its manifests' findings into the new words."""
        sites = []
        for site in simulation.sites:
            table = site.model_dump(mode="json", exclude_defaults=True)
            if site.findings is not None:
                table["findings"] = self._translated(site.findings)
            sites.append(table)
        return {
            "classes": [item.model_dump(mode="json") for item in self.classes],
            "simulation": {
                "findings": self._translated(simulation.findings),
                "sites": sites,
            },
        }

    def _translated(self, columns: Translation) -> Translation:
        """Without terms whose finding is gone: a scenario may name no unknown one."""
        return {
            column: {
                term: self.findings[finding]
                for term, finding in terms.items()
                if finding in self.findings
            }
            for column, terms in columns.items()
        }


def words_dropped(classes: Classes, share: float, seed: int) -> Texts:
    """Every text without a share of its words, at least one being left.

    What a smaller share drops, a larger one drops, too.
    """

    def dropped(text: str) -> str:
        words = text.split()
        places = list(range(len(words)))
        random.Random(derived_seed("words dropped", seed, text)).shuffle(places)
        left = places[: max(1, len(words) - round(share * len(words)))]
        return " ".join(words[place] for place in sorted(left))

    return _changed(classes, dropped)


def words_shuffled(classes: Classes, seed: int) -> Texts:
    """Every text with its words in another order."""

    def shuffled(text: str) -> str:
        words = text.split()
        random.Random(derived_seed("words shuffled", seed, text)).shuffle(words)
        return " ".join(words)

    return _changed(classes, shuffled)


def of_another_class(classes: Classes) -> Texts:
    """Every class with the texts of the next one, the last with those of the first."""
    following = [*classes[1:], classes[0]]
    rotated = [
        item.model_copy(update={"prompts": other.prompts, "findings": other.findings})
        for item, other in zip(classes, following, strict=True)
    ]
    return Texts(rotated, {finding: finding for item in classes for finding in item.findings})


def without_findings(classes: Classes) -> Texts:
    """Prompts alone."""
    return Texts([item.model_copy(update={"findings": []}) for item in classes], {})


def with_findings(classes: Classes, findings: Mapping[str, Sequence[str]]) -> Texts:
    """Other findings of each class, which no manifest knows of."""
    changed = [item.model_copy(update={"findings": list(findings[item.name])}) for item in classes]
    return Texts(changed, {})


def _changed(classes: Classes, change: Callable[[str], str]) -> Texts:
    """Every prompt and finding changed; findings that become the same are one."""
    found = {finding: change(finding) for item in classes for finding in item.findings}
    changed = [
        item.model_copy(
            update={
                "prompts": [change(prompt) for prompt in item.prompts],
                "findings": list(dict.fromkeys(found[finding] for finding in item.findings)),
            }
        )
        for item in classes
    ]
    return Texts(changed, found)
