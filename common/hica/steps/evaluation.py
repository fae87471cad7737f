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
from hica.method.disclosure import patients_of, small_classes
from hica.method.evaluation import site_metrics
from hica.method.gain import Gain, gain_of
from hica.method.site_metrics import SiteMetrics
from hica.method.stratified import combine
from hica.steps.personal import kept_logits, mixed
from hica.steps.predictions import logits, probabilities_of
from hica.steps.state import State
from hica.steps.step import Answer, Received, SiteData, Stage, Step, Turn
from hica.study import Study
from hica.wire.messages import Reply, Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
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
    leaves = (
        "accuracy, AUROC, confusion counts and calibration on your held-out patients; accuracy and "
        "AUROC of the shared model and of one trained at your site alone"
    )
    details = None
    in_sum = False
    needs_noise = False

    def turns(self, study: Study) -> Iterator[Turn]:
        """Before anything is trained, and at the end."""
        yield Turn(self, (Stage.START, 0), 0, "zero-shot evaluation", optional=True)
        yield Turn(self, (Stage.END, 0), 1, self.name)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """Metrics; the predictions are kept at the site."""
        shared, min_count = logits(data, model), data.study.federation.min_count
        trained = request.round == 1
        predictions = probabilities_of(mixed(data, shared) if trained else shared)
        # The site's own models were trained without noise: in a private study not even how good
        # they are may leave, as it depends on the patients that they were trained on.
        told = trained and not data.study.privacy.is_private
        metrics = measured(data, predictions if told else probabilities_of(shared), min_count)
        details: dict[str, Any] = metrics.to_dict()
        if trained:
            found = gain(data, shared, min_count) if told else None
            details["gain"] = found.to_dict() if found else None
        name = (ZERO_SHOT, FINAL)[request.round]
        kept = {
            "probabilities": predictions,
            "shared": probabilities_of(shared),
            "labels": data.examples("test").labels.numpy(),
            "images": data.images("test"),
        }
        return Answer({}, metrics.n, details, {name: kept})

    def check(self, study: Study, state: State, reply: Reply, sites: int = 1) -> None:
        """Refuse metrics that cannot be read, or are of more images than stand behind them."""
        n = metrics_of(study, reply)[0].n
        if n > reply.examples:
            raise MessageError(f"metrics of {n} images, {reply.examples} stand behind them")

    def combine(self, state: State, received: Received) -> State:
        """Metrics over all sites, beside those of each."""
        study, replies = received.study, received.replies
        found = {reply.site: metrics_of(study, reply) for reply in replies}
        evaluation = {
            "overall": combine([metrics for metrics, _ in found.values()]).to_dict(),
            "per_site": {site: metrics.to_dict() for site, (metrics, _) in found.items()},
            "gain": {site: gain.to_dict() for site, (_, gain) in found.items() if gain},
        }
        name = NAMES[received.turn.round]
        return replace(state, evaluations=state.evaluations | {name: evaluation})


def metrics_of(study: Study, reply: Reply) -> tuple[SiteMetrics, Gain | None]:
    """The metrics that a site has answered with, and what joining gave it where it can say.

    Raises:
        MessageError: They are not of this study's classes, or contradict each other.
    """
    table = dict(reply.details)
    gain = table.pop("gain", None)
    metrics = SiteMetrics.from_dict(table, len(study.classes), reply.site)
    return metrics, None if gain is None else Gain.from_dict(gain, reply.site)


def measured(data: SiteData, probabilities: NDArray[Any], min_count: int) -> SiteMetrics:
    """Metrics of probabilities [n, C] of the site's held-out images."""
    examples = data.examples("test")
    return site_metrics(
        probabilities,
        examples.labels.numpy(),
        list(examples.groups),
        len(data.study.classes),
        seed=data.study.study.seed,
        min_count=min_count,
    )


def gain(data: SiteData, shared: NDArray[Any], min_count: int) -> Gain | None:
    """What joining gave, of the shared model's logits [n, C]; None where the site did not train.

    On the images that `site_metrics` measures: classes with fewer than `min_count` patients are
    left out. There must be one with as many.
    """
    own = kept_logits(data)
    if own is None:
        return None
    examples = data.examples("test")
    labels, groups = examples.labels.numpy(), list(examples.groups)
    classes = range(len(data.study.classes))
    small = small_classes(patients_of(labels.tolist(), groups, classes), min_count)
    rows = np.flatnonzero(~np.isin(labels, sorted(small)))
    alone, joined, personal = (
        probabilities_of(each)[rows] for each in (own["alone"], shared, mixed(data, shared))
    )
    names = [groups[row] for row in rows]
    return gain_of(alone, joined, personal, labels[rows], names, seed=data.study.study.seed)


EVALUATION = Evaluation()
