"""Predictions: what a model says of a site's images, in logits and in probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hica.steps.step import Part, SiteData
from hica.study import Study

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from torch import Tensor

    from hica.method.local_training import Batch
    from hica.method.model import AlignmentModel


def probabilities_of(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax of logits [n, C]."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def logits(data: SiteData, model: AlignmentModel) -> NDArray[Any]:
    """Scores over temperature, with intercepts, of the site's held-out images [n, C]."""
    return np.asarray((class_scores(data, "test", model) + intercepts(data, model)).numpy())


def intercepts(data: SiteData, model: AlignmentModel) -> Tensor:
    """[C] the federation's, or the site's own where it knows the prevalence of its classes."""
    import torch

    from hica.method.prevalence import matching_intercepts

    shares = data.rest_shares
    if shares is None:
        return model.bias.cpu()
    scores = class_scores(data, "rest", model)
    return torch.from_numpy(matching_intercepts(scores.numpy(), shares)).to(scores.dtype)


def class_scores(data: SiteData, part: Part, model: AlignmentModel) -> Tensor:
    """Scores over temperature [n, C] of some of a site's images, without intercepts; on the CPU."""
    return scores_of(data.study, data.embedded(part, model), model)


def scores_of(study: Study, batch: Batch, model: AlignmentModel) -> Tensor:
    """Scores over temperature [n, C] of embedded images, without intercepts; on the CPU.

    Each image by itself: computed together, the last digits of one depend on how many others are,
    and metrics of a shown class would tell how many images are of a hidden one.
    """
    import torch

    stage, device = study.alignment, model.centre.device

    def scores(row: slice) -> Tensor:
        return model.scores(
            batch.images[row].to(device),
            batch.regions[row].to(device),
            batch.valid[row].to(device),
            model.finding_classes,
            stage.region_blend,
        )

    with torch.no_grad():
        rows = [scores(slice(row, row + 1)) for row in range(len(batch.images))]
    return (torch.cat(rows) / stage.temperature).cpu()
