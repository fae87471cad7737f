"""Evaluation: metrics on every site's held-out patients; predictions stay there.

Patients of a class that has few at the site are predicted, and kept there, but not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.method.evaluation import site_metrics
from hica.method.site_metrics import SiteMetrics
from hica.method.stratified import combine
from hica.steps.state import State
from hica.steps.step import Answer, Part, Received, SiteData, Stage, Step, Turn
from hica.study import Study
from hica.wire.messages import Reply, Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from torch import Tensor

    from hica.method.model import AlignmentModel

NAMES = ("zero_shot", "final")
"""Of the evaluations, by their round: the texts alone, and the trained model."""
ZERO_SHOT, FINAL = "zero_shot", "predictions"
"""What a site keeps its predictions as, by the same round."""


class Evaluation(Step):
    """Metrics of a site, without its classes of few patients."""

    name = "evaluation"
    kind = "evaluate.metrics"
    role = "test"
    leaves = "accuracy, AUROC, confusion counts and calibration on your held-out patients"
    details = None
    in_sum = False
    needs_noise = False

    def turns(self, study: Study) -> Iterator[Turn]:
        """Before anything is trained, and at the end."""
        yield Turn(self, (Stage.START, 0), 0, "zero-shot evaluation", optional=True)
        yield Turn(self, (Stage.END, 0), 1, self.name)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """Metrics; the predictions are kept at the site."""
        study, examples = data.study, data.examples("test")
        probabilities, labels = predict(data, model), examples.labels.numpy()
        metrics = site_metrics(
            probabilities,
            labels,
            list(examples.groups),
            len(study.classes),
            seed=study.study.seed,
            min_count=study.federation.min_count,
        )
        name = (ZERO_SHOT, FINAL)[request.round]
        kept = {"probabilities": probabilities, "labels": labels, "images": data.images("test")}
        return Answer({}, metrics.n, metrics.to_dict(), {name: kept})

    def check(self, study: Study, state: State, reply: Reply, sites: int = 1) -> None:
        """Refuse metrics that cannot be read, or are of more images than stand behind them."""
        n = metrics_of(study, reply).n
        if n > reply.examples:
            raise MessageError(f"metrics of {n} images, {reply.examples} stand behind them")

    def combine(self, state: State, received: Received) -> State:
        """Metrics over all sites, beside those of each."""
        found = {reply.site: metrics_of(received.study, reply) for reply in received.replies}
        evaluation = {
            "overall": combine(list(found.values())).to_dict(),
            "per_site": {site: metrics.to_dict() for site, metrics in found.items()},
        }
        name = NAMES[received.turn.round]
        return replace(state, evaluations=state.evaluations | {name: evaluation})


def metrics_of(study: Study, reply: Reply) -> SiteMetrics:
    """The metrics that a site has answered with.

    Raises:
        MessageError: They are not of this study's classes, or contradict each other.
    """
    return SiteMetrics.from_dict(reply.details, len(study.classes), reply.site)


def predict(data: SiteData, model: AlignmentModel) -> NDArray[Any]:
    """Class probabilities [n, C] of the site's held-out images."""
    scores = class_scores(data, "test", model)
    return np.asarray((scores + intercepts(data, model)).softmax(dim=-1).numpy())


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
    import torch

    stage, device = data.study.alignment, model.centre.device
    batch = data.embedded(part, model)
    with torch.no_grad():
        scores = model.scores(
            batch.images.to(device),
            batch.regions.to(device),
            batch.valid.to(device),
            model.finding_classes,
            stage.region_blend,
        )
    return (scores / stage.temperature).cpu()


EVALUATION = Evaluation()
