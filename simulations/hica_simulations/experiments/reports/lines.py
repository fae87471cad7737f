"""The lines of the table: ways to score whether a report says a finding, [n, M] each."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hica.reports.assignment import Finding
from hica.reports.sentences import sentences, without_placeholders
from hica.reports.standing import Standing, phrases
from hica.reports.targets import read_reports
from hica.text.bank import embed
from hica.towers.base import TextTower

Scores = NDArray[np.float64]
NEGATION = re.compile(r"\b(?:no|not|without|negative|free|absence|resolved|clear|normal)\b", re.I)
WEIGHTS = {Standing.AFFIRMED: 1.0, Standing.UNCERTAIN: 0.5, Standing.DENIED: -0.5}


@dataclass(frozen=True, eq=False)
class Case:
    """What every line is given; the P distinct sentences are embedded once for all.

    Attributes:
        tower: The text tower.
        reports: n reports.
        findings: M findings.
        sentences: The distinct sentences.
        own: For each report the rows of its sentences.
        embedded: [P, D], unit rows.
    """

    tower: TextTower
    reports: Sequence[str]
    findings: Sequence[Finding]
    sentences: list[str]
    own: list[list[int]]
    embedded: Scores


Line = Callable[[Case], Scores]


def case_of(tower: TextTower, reports: Sequence[str], findings: Sequence[Finding]) -> Case:
    """Split and embed the reports."""
    split = [
        [without_placeholders(report[span.start : span.end]) for span in sentences(report)]
        for report in reports
    ]
    distinct = sorted({text for own in split for text in own}, key=lambda text: (len(text), text))
    rows = {text: row for row, text in enumerate(distinct)}
    return Case(
        tower,
        reports,
        findings,
        distinct,
        [[rows[text] for text in own] for own in split],
        embed(tower, distinct, "sentences").numpy(),
    )


def cosine(case: Case) -> Scores:
    """The best sentence's cosine to a finding's first text."""
    return _best(case, case.embedded @ _texts(case).T)


def minus_negated(case: Case) -> Scores:
    """The same less its cosine to the text with "no" before it."""
    return _best(case, case.embedded @ (_texts(case) - _texts(case, "no ")).T)


def without_negated(case: Case) -> Scores:
    """The best cosine of the sentences that have no word of negation."""
    negates = np.array([NEGATION.search(text) is not None for text in case.sentences])
    return _best(case, np.where(negates[:, None], -1.0, case.embedded @ _texts(case).T))


def rules(case: Case) -> Scores:
    """A finding's texts word by word, and how the phrase stands that has them."""
    words = [
        re.compile("|".join(rf"\b{re.escape(text)}s?\b" for text in finding.texts), re.IGNORECASE)
        for finding in case.findings
    ]
    scores = np.zeros((len(case.reports), len(words)))
    for row, report in enumerate(case.reports):
        found = [
            (phrase.standing, report[phrase.span.start : phrase.span.end])
            for sentence in sentences(report)
            for phrase in phrases(report, sentence)
        ]
        for column, pattern in enumerate(words):
            standings = [WEIGHTS[standing] for standing, text in found if pattern.search(text)]
            scores[row, column] = max(standings, default=0.0)
    return scores


def both(case: Case) -> Scores:
    """What `hica.reports` makes of them."""
    return read_reports(case.tower, case.reports, case.findings).values.astype(np.float64)


LINES: dict[str, Line] = {
    "cosine": cosine,
    "cosine less that to the negated text": minus_negated,
    "cosine without sentences that negate": without_negated,
    "rules and words alone": rules,
    "rules and soft assignment": both,
}


def _texts(case: Case, before: str = "") -> Scores:
    """The first text of every finding, [M, D], with words before it."""
    texts = [before + finding.texts[0] for finding in case.findings]
    found: Scores = embed(case.tower, texts, "finding texts").numpy()
    return found


def _best(case: Case, scores: Scores) -> Scores:
    """The highest score [P, M] among each report's sentences, [n, M]; -1 where it has none."""
    return np.array([scores[own].max(axis=0, initial=-1.0) for own in case.own])
