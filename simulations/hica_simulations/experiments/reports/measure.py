"""measure: the lines of the table against MeSH, on a half nobody chose on and on all reports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from hica.progress import track
from hica.storage import write_atomically
from hica.towers.base import TextTower
from hica_simulations.experiments.pages import Table, markdown, write_csv
from hica_simulations.experiments.reports.indiana import Indiana
from hica_simulations.experiments.reports.lines import LINES, Scores, case_of

SEED = 21
"""Draws the half on which settings were chosen, and on which each line's threshold is."""
BOTH = "rules and soft assignment"


def measure(tower: TextTower, indiana: Indiana) -> list[dict[str, Any]]:
    """AUROC and F1 of every line and finding, on the other half and on all reports."""
    half = chosen_half(len(indiana.reports))
    parts = {"other half": ~half, "all": np.ones(len(half), dtype=np.bool_)}
    case = case_of(tower, indiana.reports, indiana.findings)
    rows = []
    for name, line in track(LINES.items(), "measuring", len(LINES)):
        scores = line(case)
        threshold = best_threshold(scores[half], indiana.truth[half])
        for column, finding in enumerate(indiana.findings):
            for part, rows_of in parts.items():
                truth, own = indiana.truth[rows_of, column], scores[rows_of, column]
                rows.append(
                    {
                        "line": name,
                        "finding": finding.name,
                        "trial": bool(indiana.trial[column]),
                        "part": part,
                        "reports": int(truth.sum()),
                        "auroc": float(roc_auc_score(truth, own)) if 0 < truth.mean() < 1 else None,
                        "f1": float(f1_score(truth, own >= threshold)),
                        "threshold": threshold,
                    }
                )
    return rows


def chosen_half(count: int) -> NDArray[np.bool_]:
    """The half of the reports on which settings are chosen, [n]."""
    half = np.zeros(count, dtype=np.bool_)
    half[np.random.default_rng(SEED).permutation(count)[: count // 2]] = True
    return half


def best_threshold(scores: Scores, truth: NDArray[np.bool_]) -> float:
    """The one threshold for all findings at which their mean F1 is highest."""
    candidates = np.unique(np.quantile(scores, np.linspace(0.8, 1.0, 81)))
    means = []
    for candidate in candidates:
        named = scores >= candidate
        hits = (named & truth).sum(axis=0)
        means.append((2 * hits / np.maximum(named.sum(axis=0) + truth.sum(axis=0), 1)).mean())
    return float(candidates[int(np.argmax(means))])


def write(rows: list[dict[str, Any]], out: Path) -> str:
    """Write `reports.csv` and `reports.md`; returns the Markdown.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    write_csv(rows, out / "reports.csv")
    header = ["line", *(f"{what}, {words}" for words in KINDS.values() for what in SHOWN)]
    lines = [
        [name, *(_mean(rows, {"line": name}, kind, *what) for kind in KINDS for what in MEANS)]
        for name in LINES
    ]
    every = [
        [finding, *(_mean(rows, {"line": BOTH, "finding": finding}, None, *what) for what in MEANS)]
        for finding in dict.fromkeys(row["finding"] for row in rows)
    ]
    text = markdown(Table(header, lines)) + "\n" + markdown(Table(["finding", *SHOWN], every))
    write_atomically(out / "reports.md", text.encode())
    return text


KINDS = {True: "the ten", False: "twenty more"}
MEANS = (("auroc", "other half"), ("auroc", "all"), ("f1", "other half"), ("f1", "all"))
SHOWN = ("AUROC", "AUROC on all", "F1", "F1 on all")


def _mean(
    rows: list[dict[str, Any]], where: Mapping[str, Any], trial: bool | None, key: str, part: str
) -> str:
    """Mean of a column over the rows that are meant."""
    values = [
        row[key]
        for row in rows
        if row["part"] == part
        and trial in (None, row["trial"])
        and all(row[name] == value for name, value in where.items())
    ]
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else "–"
