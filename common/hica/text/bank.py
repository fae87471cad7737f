"""Text bank: class and finding texts as unit vectors, shared by the coordinator with every site.

Sites never run a text encoder. Against this bank every term of the objective is a sum over single
images, which is what makes per-image clipping exact (`hica.method.objective`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hica.errors import ConfigurationError
from hica.towers.base import TextTower

ClassTexts = tuple[str, Sequence[str], Sequence[str], bool]
"""A class as plain values: (name, prompts, findings, healthy)."""

BATCH_SIZE = 64
"""Sentences embedded at once."""

INDISTINGUISHABLE = 0.999
"""Cosine of two raw class texts above which centring would only blow up rounding."""

NOTHING_LEFT = 1e-6
"""Length of a centred unit text below which only rounding is left."""


@dataclass(frozen=True, eq=False)
class TextBank:
    """Class texts T, finding texts F and who lists what.

    Attributes:
        classes: T [C, D], unit rows.
        findings: F [M, D], unit rows.
        class_names: C names, in the order of the labels.
        finding_names: M distinct findings, in order of first mention.
        finding_classes: [M, C] bool, True where the class lists the finding.
        healthy: [C] bool. The findings of a healthy class are seen in every image.
    """

    classes: Tensor
    findings: Tensor
    class_names: tuple[str, ...]
    finding_names: tuple[str, ...]
    finding_classes: Tensor
    healthy: Tensor

    @classmethod
    def assemble(cls, texts: Sequence[ClassTexts], classes: Tensor, findings: Tensor) -> Self:
        """The bank of a study's texts from vectors already known, as a site receives them.

        Unit rows: classes [C, D], and findings [M, D] in the order of `finding_names(texts)`.
        """
        names = finding_names(texts)
        listed = [[name in listing for _, _, listing, _ in texts] for name in names]
        return cls(
            classes=classes,
            findings=findings,
            class_names=tuple(name for name, _, _, _ in texts),
            finding_names=names,
            finding_classes=torch.tensor(listed, dtype=torch.bool).reshape(len(names), len(texts)),
            healthy=torch.tensor([healthy for _, _, _, healthy in texts]),
        ).to(classes.device)

    @property
    def sha256(self) -> str:
        """Hash over names, listings and the float32 bytes of both matrices."""
        header = [
            self.class_names,
            self.finding_names,
            self.finding_classes.tolist(),
            self.healthy.tolist(),
        ]
        digest = hashlib.sha256(json.dumps(header).encode())
        for matrix in (self.classes, self.findings):
            digest.update(matrix.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Self:
        """The same bank on another device."""
        return replace(
            self,
            classes=self.classes.to(device),
            findings=self.findings.to(device),
            finding_classes=self.finding_classes.to(device),
            healthy=self.healthy.to(device),
        )

    def positives(self, labels: Tensor, named: Sequence[Sequence[str]]) -> Tensor:
        """Which findings the regions of each image may be pulled to: bool [B, M], beside `labels`.

        They are the findings of the image's class, narrowed to those its manifest names (`named`,
        empty where it names none), plus those of healthy tissue. Narrowing only ever removes: an
        image that names no finding of its own class keeps them all, and findings outside the bank
        do not count. Labels [B] are long; -1, unlabelled, has no positives.
        """
        index = {name: column for column, name in enumerate(self.finding_names)}
        own = torch.zeros(len(labels), len(index), dtype=torch.bool)
        for row, names in enumerate(named):
            own[row, [index[name] for name in names if name in index]] = True
        own = own.to(labels.device)
        listed = self.finding_classes.T.to(labels.device)  # [C, M]
        everywhere = listed[self.healthy.to(labels.device)].any(dim=0)  # [M]
        of_class = listed[labels.clamp(min=0)]  # [B, M]
        narrowed = of_class & own & ~everywhere
        found = torch.where(narrowed.any(dim=1, keepdim=True), narrowed, of_class) | everywhere
        return found & (labels >= 0).unsqueeze(1)


def finding_names(texts: Sequence[ClassTexts]) -> tuple[str, ...]:
    """Distinct findings over all classes, in order of first mention."""
    return tuple(dict.fromkeys(name for _, _, listing, _ in texts for name in listing))


def build_text_bank(
    tower: TextTower, texts: Sequence[ClassTexts], dim: int, max_similarity: float, seed: int
) -> TextBank:
    """Embed, centre and map the texts of a study of at least two classes.

    A class text is the mean of its embedded prompts. Every text of one tower shares a large common
    direction that says "medical sentence" and no diagnosis, so it is subtracted: from class texts
    their mean, from findings theirs, apart, because each kind meets images in a softmax of its own
    and sentences differ in form from phrases. A tower of other width than `dim`, D of the joint
    space, is mapped there by a seeded orthonormal map, which keeps every cosine where D is not the
    smaller. `max_similarity` is the largest cosine allowed between two class texts after centring.

    Raises:
        ConfigurationError: An embedding that is not finite, or two class texts too close.
    """
    names = [name for name, _, _, _ in texts]
    classes = torch.stack([_class_text(tower, name, prompts) for name, prompts, _, _ in texts])
    _refuse_close(classes, names, INDISTINGUISHABLE, "before centring")
    findings = embed(tower, finding_names(texts), "findings")
    joint = orthonormal_map(tower.dim, dim, seed)
    classes = F.normalize(_centred(classes, "class") @ joint, dim=-1)  # [C, D]
    findings = F.normalize(_centred(findings, "finding") @ joint, dim=-1)  # [M, D]
    _refuse_close(classes, names, max_similarity, "after centring")
    return TextBank.assemble(texts, classes.float(), findings.float())


def widened_classes(
    tower: TextTower,
    texts: Sequence[ClassTexts],
    new: Sequence[ClassTexts],
    dim: int,
    max_similarity: float,
    seed: int,
) -> Tensor:
    """Class texts of a study and of further classes, [C + U, D] with unit rows, by texts alone.

    The rows of the study's classes are those of `build_text_bank`. What is subtracted from the
    others is the same mean, of the study's classes: images were trained against texts about it.

    Raises:
        ConfigurationError: An embedding that is not finite, or two class texts too close.
    """
    every = [*texts, *new]
    names = [name for name, _, _, _ in every]
    rows = torch.stack([_class_text(tower, name, prompts) for name, prompts, _, _ in every])
    _refuse_close(rows, names, INDISTINGUISHABLE, "before centring")
    rows = rows - rows[: len(texts)].mean(dim=0)
    rows = F.normalize(rows @ orthonormal_map(tower.dim, dim, seed), dim=-1)
    _refuse_close(rows, names, max_similarity, "after centring")
    return rows.float()


@torch.no_grad()
def embed(tower: TextTower, sentences: Sequence[str], what: str) -> Tensor:
    """Unit embeddings [len(sentences), tower.dim] in float64, on the CPU.

    Raises:
        ConfigurationError: An embedding is not finite; names `what`.
    """
    was_training, device = tower.training, next(tower.parameters()).device
    tower.eval()
    rows = torch.zeros(0, tower.dim, dtype=torch.float64)
    for start in range(0, len(sentences), BATCH_SIZE):
        tokens = tower.tokenize(list(sentences[start : start + BATCH_SIZE])).to(device)
        rows = torch.cat([rows, tower(tokens).double().cpu()])
    tower.train(was_training)
    if not rows.isfinite().all():
        raise ConfigurationError(
            f"{what}: embedded to NaN or infinity, so the text tower's weights are broken; "
            "check model.text and model.checkpoint, or lower text.learning_rate"
        )
    return F.normalize(rows, dim=-1)


def orthonormal_map(inputs: int, outputs: int, seed: int) -> Tensor:
    """A seeded random matrix [inputs, outputs] in float64 with orthonormal rows, or columns.

    Rows are orthonormal where inputs ≤ outputs (`x @ map` keeps every dot product), columns
    otherwise; the identity where both are equal, so that a paired tower is not turned away from
    its images. Signs of QR are fixed, so that it is the same with every LAPACK.
    """
    if inputs == outputs:
        return torch.eye(inputs, dtype=torch.float64)
    shape = max(inputs, outputs), min(inputs, outputs)
    gaussian = np.random.default_rng(seed).standard_normal(shape)
    q, r = torch.linalg.qr(torch.from_numpy(gaussian))
    columns: Tensor = q * r.diagonal().sign()
    return columns if inputs > outputs else columns.T


def _class_text(tower: TextTower, name: str, prompts: Sequence[str]) -> Tensor:
    """Unit mean [tower.dim] of a class's embedded prompts, blank ones left out."""
    sentences = [prompt for prompt in prompts if prompt.strip()]
    if not sentences:
        raise ConfigurationError(f"class {name!r} has no prompts: give at least one sentence")
    return F.normalize(embed(tower, sentences, f"prompts of class {name!r}").mean(0), dim=-1)


def _centred(rows: Tensor, kind: str) -> Tensor:
    """Rows minus their mean, at unit length; a single row stays what it is."""
    if len(rows) < 2:
        return rows
    centred = rows - rows.mean(dim=0)
    if centred.norm(dim=-1).min() < NOTHING_LEFT:
        raise ConfigurationError(
            f"a {kind} text equals the mean of all {kind} texts, so nothing of it is left after "
            "centring: the text tower does not tell these texts apart; raise text.epochs, or name "
            "another model.text"
        )
    return F.normalize(centred, dim=-1)


def _refuse_close(rows: Tensor, names: Sequence[str], limit: float, when: str) -> None:
    """Raise for the closest two of C unit rows where their cosine exceeds `limit`."""
    cosine = (rows @ rows.T).fill_diagonal_(-1.0)
    if (largest := cosine.max().item()) > limit:
        first, second = divmod(int(cosine.argmax()), len(names))
        raise ConfigurationError(
            f"classes {names[first]!r} and {names[second]!r}: cosine {largest:.4f} of their texts "
            f"{when} exceeds {limit}; give them prompts that say how they differ, "
            "raise text.epochs, or name another model.text"
        )
