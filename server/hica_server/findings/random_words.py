"""Findings without meaning: the control in a comparison of where findings come from.

What a study gains with these it owes to having several texts for a class, not to what they say.
"""

import random

from hica.errors import ConfigurationError
from hica.seeds import derived_seed
from hica.study import Study
from hica_server.findings.draft import Findings

CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aeiou"


def random_findings(study: Study, seed: int) -> Findings:
    """Each finding of `study` replaced by as many random words, pronounceable ones.

    A finding that several classes list becomes one phrase that they all list, so that meaning is
    all that is taken away. The same seed gives the same words.

    Raises:
        ConfigurationError: A class without findings.
    """
    for item in study.classes:
        if not item.findings:
            raise ConfigurationError(
                f"class {item.name!r} has no findings whose number random words could copy; give "
                "it findings in the study, or take --source template"
            )
    drawn = random.Random(derived_seed("random findings", seed))
    replaced: dict[str, str] = {}
    for finding in study.finding_names:
        while (phrase := " ".join(_word(drawn) for _ in finding.split())) in replaced.values():
            pass
        replaced[finding] = phrase
    return {item.name: [replaced[finding] for finding in item.findings] for item in study.classes}


def _word(drawn: random.Random) -> str:
    """Two or three syllables of a consonant and a vowel."""
    syllables = drawn.randint(2, 3)
    return "".join(drawn.choice(CONSONANTS) + drawn.choice(VOWELS) for _ in range(syllables))
