"""targets: what the reports of a site say of each finding, one row a report.

"Not mentioned" is apart from "denied", and "uncertain" from both: who trains on these may leave
them out, or weigh them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hica.reports.assignment import Finding, assign
from hica.reports.language import is_english
from hica.reports.sentences import Span, is_cut, sentences, without_placeholders
from hica.reports.standing import Standing, calls_all_normal, phrases
from hica.towers.base import TextTower

NAMED = 0.5
"""From which share on a phrase names a finding."""


EMPTY, NOT_ENGLISH = "empty", "not English"
"""Why nothing is read of a report."""


class State(IntEnum):
    """What a report says of a finding."""

    NOT_MENTIONED = 0
    DENIED = 1
    UNCERTAIN = 2
    MENTIONED = 3


class Evidence:
    """A phrase that names a finding: shown to people at the site, never written elsewhere."""

    __slots__ = ("finding", "share", "span", "standing")

    def __init__(self, span: Span, standing: Standing, finding: int, share: float) -> None:
        self.span, self.standing, self.finding, self.share = span, standing, finding, share

    def __repr__(self) -> str:  # no word of a report, wherever it is printed
        return f"Evidence({self.standing}, finding {self.finding}, {self.share:.2f})"


@dataclass(frozen=True, eq=False)
class Targets:
    """Of n reports and M findings.

    Attributes:
        findings: Their M names.
        values: [n, M] in 0..1: how sure a finding is said to be there. An uncertain one counts
            like an affirmed one; the state tells them apart.
        states: [n, M], of `State`.
        normal: [n] bool: the report calls the whole image normal.
        unread: Why nothing was read of a report, `EMPTY` or `NOT_ENGLISH`, by its row.
        cut: Rows of reports that are longer than what is read.
        evidence: For each report the phrases that name a finding.
    """

    findings: tuple[str, ...]
    values: NDArray[np.float32]
    states: NDArray[np.int8]
    normal: NDArray[np.bool_]
    unread: dict[int, str]
    cut: tuple[int, ...]
    evidence: tuple[tuple[Evidence, ...], ...]


@dataclass(frozen=True)
class _Piece:
    """A phrase of a report, by the number of its text among all distinct ones."""

    span: Span
    standing: Standing
    text: int


def read_reports(
    tower: TextTower, reports: Sequence[str | None], findings: Sequence[Finding]
) -> Targets:
    """What reports say of findings. Every distinct phrase is embedded once.

    Reports that are empty or not English are passed over: all they say is "not mentioned".

    Raises:
        ConfigurationError: The tower gives no finite embedding.
    """
    texts: dict[str, int] = {}
    pieces: list[list[_Piece]] = []
    unread: dict[int, str] = {}
    normal = np.zeros(len(reports), dtype=np.bool_)
    for row, report in enumerate(reports):
        pieces.append([])
        if why := _unread(report):
            unread[row] = why
            continue
        text = report or ""
        for sentence in sentences(text):
            normal[row] |= calls_all_normal(text[sentence.start : sentence.end])
            for span, standing in phrases(text, sentence):
                words = without_placeholders(text[span.start : span.end])
                number = texts.setdefault(words, len(texts))
                pieces[row].append(_Piece(span, standing, number))
    shares = assign(tower, list(texts), findings).numpy()
    values = np.zeros((len(reports), len(findings)), dtype=np.float32)
    states = np.zeros((len(reports), len(findings)), dtype=np.int8)
    for row, own in enumerate(pieces):
        by = {standing: _highest(own, shares, standing) for standing in Standing}
        values[row] = np.maximum(by[Standing.AFFIRMED], by[Standing.UNCERTAIN])
        states[row] = np.select(
            [by[standing] >= NAMED for standing in by],
            [State.MENTIONED, State.UNCERTAIN, State.DENIED],
            State.DENIED if normal[row] else State.NOT_MENTIONED,
        )
    return Targets(
        findings=tuple(finding.name for finding in findings),
        values=values,
        states=states,
        normal=normal,
        unread=unread,
        cut=tuple(row for row, report in enumerate(reports) if report and is_cut(report)),
        evidence=tuple(tuple(_evidence(own, shares)) for own in pieces),
    )


def _unread(report: str | None) -> str:
    """Why nothing is read of a report; empty: it is read."""
    if report is None or not any(sentences(report)):
        return EMPTY
    return "" if is_english(report) else NOT_ENGLISH


def _highest(
    pieces: Sequence[_Piece], shares: NDArray[np.float32], standing: Standing
) -> NDArray[np.float32]:
    """Per finding the highest share among phrases of one standing, [M]."""
    rows = [piece.text for piece in pieces if piece.standing is standing]
    highest: NDArray[np.float32] = shares[rows].max(axis=0, initial=0.0)
    return highest


def _evidence(pieces: Sequence[_Piece], shares: NDArray[np.float32]) -> list[Evidence]:
    """The phrases that name a finding, for each finding in order."""
    return [
        Evidence(piece.span, piece.standing, int(finding), float(shares[piece.text, finding]))
        for piece in pieces
        for finding in np.flatnonzero(shares[piece.text] >= NAMED)
    ]
