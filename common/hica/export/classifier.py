"""A trained model as one function: colours of an image to class logits, with nothing of training.

Of whole images only: scores of regions, which some studies blend in, need regions.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hica.export.merging import merge
from hica.images.preprocess import Preprocess
from hica.method.model import AlignmentModel
from hica.study import Study
from hica.towers.adaptation import Adapter
from hica.towers.base import ImageTower


class Classifier(nn.Module):
    """Colours float32 [B, 3, S, S] in 0..1 to class logits [B, C] and unit embeddings [B, D].

    `mirrored` images are seen once more, mirrored, and the two embeddings averaged on the sphere.
    Low-rank factors are merged into the weights; the model it is made of stays as it is. `bias`
    are other intercepts [C] than its own.

    Attributes:
        tower: The image tower, in layers that its library knows.
        adapter: What comes after it; None where there is none.
        centre, gain: [D], an embedding is the unit vector of (features - centre)·gain.
        classes: [C, D], unit rows.
        findings: [M, D], unit rows.
        bias: [C], intercepts.
        temperature: What cosines are divided by.
    """

    centre: Tensor
    gain: Tensor
    classes: Tensor
    findings: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: AlignmentModel,
        temperature: float,
        mirrored: bool,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        adapted = deepcopy(model.tower).cpu().eval().requires_grad_(False)
        merge(adapted.tower)
        # In channels_last, as a site computes, a convolution's last digits are others.
        self.tower: ImageTower = adapted.tower.to(memory_format=torch.contiguous_format)
        self.adapter: Adapter | None = adapted.adapter
        self.unit_features = model.unit_features
        self.temperature, self.mirrored = temperature, mirrored
        with torch.no_grad():
            classes, findings = (rows.detach().cpu() for rows in model.unit_bank())
        for name, value in {
            "centre": model.centre[0],
            "gain": model.share / model.scale[0],
            "classes": classes,
            "findings": findings,
            "bias": model.bias if bias is None else bias.float(),
            "mean": torch.tensor(self.preprocess.mean).view(3, 1, 1),
            "std": torch.tensor(self.preprocess.std).view(3, 1, 1),
        }.items():
            self.register_buffer(name, value.detach().cpu().clone())
        self.eval()

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes a square of colours."""
        return self.tower.preprocess

    def features(self, colours: Tensor) -> Tensor:
        """[B, W], what the tower makes of images, before the adapter."""
        pooled: Tensor = self.tower((colours - self.mean) / self.std).pooled
        return pooled

    def embedding(self, colours: Tensor) -> Tensor:
        """Unit rows [B, D] of images in one view."""
        features = self.features(colours)
        if self.adapter is not None:
            features = self.adapter(features)
        if self.unit_features:
            features = functional.normalize(features, dim=-1)
        return functional.normalize((features - self.centre) * self.gain, dim=-1)

    def logits(self, embeddings: Tensor) -> Tensor:
        """[B, C] of unit embeddings."""
        return embeddings @ self.classes.T / self.temperature + self.bias

    def forward(self, colours: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embeddings, as HiCA predicts: of both views where it takes two."""
        embeddings = self.embedding(colours)
        if self.mirrored:
            both = embeddings + self.embedding(colours.flip(-1))
            embeddings = functional.normalize(both, dim=-1)
        return self.logits(embeddings), embeddings


@dataclass(frozen=True)
class Exported:
    """What is exported: the model, the study it is of, and what is known of it.

    Attributes:
        classifier: The model.
        study: The study.
        facts: What the card says beside the study: see `hica.export.card`.
        left_out: Why a form is not in the folder, by form; filled while they are written.
    """

    classifier: Classifier
    study: Study
    facts: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of logits."""
        return self.study.class_names

    @property
    def findings(self) -> list[str]:
        """Their texts, in the order of the finding matrix."""
        return self.study.finding_names

    @property
    def texts(self) -> Sequence[str]:
        """Names of classes, then findings that are no class's name."""
        return list(dict.fromkeys([*self.classes, *self.findings]))


class NotPossibleError(Exception):
    """A form cannot hold this model; says why, for the card."""


@torch.no_grad()
def sample(classifier: Classifier, count: int = 3) -> Tensor:
    """Colours [count, 3, S, S] that are the same each time: to compare two forms of a model on."""
    side = classifier.preprocess.size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (255 * smooth).round() / 255  # as pixels are
