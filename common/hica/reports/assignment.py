"""assignment: how much each phrase of a report is about each finding, by a text tower.

The cosine alone is no measure: "opacity" is near every phrase about lungs. So a finding competes
with the other findings and with phrases of everyday reports that name none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hica.progress import track
from hica.text.bank import embed
from hica.towers.base import TextTower

BACKGROUND = (
    "normal",
    "unremarkable",
    "stable and unchanged",
    "compared with the previous examination",
    "clinical correlation is recommended",
    "no acute disease",
    "the image",
    "the patient",
    "surgery",
    "a device",
    "the right side",
    "the left side",
    "mild",
    "the heart",
    "the lungs",
    "the bones",
    "the vessels",
    "the soft tissues",
    "the mediastinum",
)
"""What phrases are about that name no finding."""
TEMPERATURE = 0.1
"""By which cosines are divided. Chosen with `RARITY` on a half of the Indiana reports."""
RARITY = 20.0
"""How many times nearer than the average competitor a finding has to be, for an even chance."""
CHUNK = 2048
"""Phrases whose embeddings are in memory at once; none is ever written."""


class Finding(NamedTuple):
    """What is looked for in reports: its name, and texts that say it."""

    name: str
    texts: tuple[str, ...]


@torch.no_grad()
def assign(tower: TextTower, phrases: Sequence[str], findings: Sequence[Finding]) -> Tensor:
    """How sure each phrase names each finding, [P, M] in 0..1, float32, on the CPU.

    With e = exp(cosine / τ), of a finding's nearest text, and ē the mean of e over all other
    findings and the background, it is e / (e + RARITY · ē): a prior that does not depend on how
    many findings a study has.

    Raises:
        ConfigurationError: The tower gives no finite embedding.
    """
    texts = [text for finding in findings for text in finding.texts]
    known = embed(tower, [*texts, *BACKGROUND], "finding texts")  # [T, D]
    owner = torch.tensor([row for row, finding in enumerate(findings) for _ in finding.texts])
    order = sorted(range(len(phrases)), key=lambda row: len(phrases[row]))  # alike in length
    found = torch.zeros(len(phrases), len(findings))
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    for chunk in track(chunks, "reading the reports"):
        rows = embed(tower, [phrases[row] for row in chunk], "phrases of reports")
        found[chunk] = _shares(rows @ known.T, owner, len(findings)).float()
    return found


def _shares(cosine: Tensor, owner: Tensor, findings: int) -> Tensor:
    """Cosines [P, texts and background] to shares [P, M]."""
    odds = (cosine / TEMPERATURE).exp()
    texts, background = odds[:, : len(owner)], odds[:, len(owner) :]
    nearest = torch.zeros(len(odds), findings, dtype=odds.dtype).scatter_reduce(
        1, owner.expand(len(odds), -1), texts, "amax"
    )
    others = nearest.sum(1, keepdim=True) - nearest + background.sum(1, keepdim=True)
    mean = others / (findings - 1 + background.shape[1])
    return nearest / (nearest + RARITY * mean)
