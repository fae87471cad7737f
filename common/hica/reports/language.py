"""language: whether a report is in English, the only one whose denials are understood here.

Told by py3langid (after Lui and Baldwin, 2012), which needs no network.
"""

from hica.reports.sentences import MOST_CHARACTERS, without_placeholders

ENGLISH = "en"
MARGIN = 5.0
"""Nats by which another language must fit better: medical words are half Latin, and "Bilateral
pulmonary tuberculosis." is Spanish by 2."""
FEWEST_WORDS = 3
"""Fewer, in plain letters, are too few to tell, and are read: "Cardiomegaly."."""


def is_english(report: str) -> bool:
    """Whether no other language fits a report clearly better than English."""
    from py3langid import rank

    text = without_placeholders(report[:MOST_CHARACTERS])
    if text.isascii() and len(text.split()) < FEWEST_WORDS:
        return True
    fits = dict(rank(text))
    return bool(max(fits.values()) - fits[ENGLISH] < MARGIN)
