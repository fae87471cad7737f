"""Prototypes: class means of all sites' shots, where a trained text bank starts.

The bank starts at the unit sum of text and class mean, and is held there by `text_pull`. Where a
private study trains nothing, one release of class means gives the whole classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hica.method.class_means import as_bank, blended_start, nearest_mean, with_texts
from hica.method.shrinkage import class_means
from hica.steps.arrays import LARGEST_FEATURE, Array, counts, sums
from hica.steps.state import State
from hica.steps.step import Answer, Kept, Received, Rows, SiteData, Stage, Statistic, Turn
from hica.study import Study
from hica.wire.messages import Request
from hica.wire.weight_names import BANK_CLASSES

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel


MEANS = "class_means"
"""What a site keeps its own class means as."""


class Prototypes(Statistic):
    """Sums of unit embeddings of the shots of each class."""

    name = "prototypes"
    kind = "train.prototypes"
    role = "labelled"
    leaves = "sum of the features of the labelled images of each class, and their number"

    def turns(self, study: Study) -> Iterator[Turn]:
        """Once, before stage 2, where a bank is trained and starts at means."""
        if study.alignment.starts_at_means:
            yield Turn(self, (Stage.CLASSES, 0), 0, self.name)

    def estimates(self, study: Study) -> tuple[str, ...]:
        """The intercepts, where class means are the whole classifier."""
        return ("bias",) if study.privacy.mechanism == "prototypes" else ()

    def answers(self, study: Study) -> tuple[Array, ...]:
        """Sums and counts by class."""
        largest = LARGEST_FEATURE * self.most_images(study)
        return sums(("classes", "width"), largest, 1.0), counts("classes", largest, 1.0)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """The site's sums."""
        from hica.method.local_training import class_sums

        batch = data.embedded("labelled", model)
        found, number = class_sums(batch, len(request.study.classes))
        arrays = {"sums": found.numpy(), "counts": number.numpy()}
        return Answer(arrays, len(batch.labels), keep=self.own(data, model, request))

    def own(self, data: SiteData, model: AlignmentModel, request: Request) -> dict[str, Kept]:
        """The site's own class means, which its personal model is weighed by."""
        batch = data.embedded("labelled", model)
        rows, labels = batch.images.double().numpy(), batch.labels.numpy()
        return {MEANS: class_means(rows, labels, len(request.study.classes))._asdict()}

    def rows(self, data: SiteData, model: AlignmentModel, request: Request) -> Rows:
        """The embedding of every shot, mean over its training views."""
        from hica.method.local_training import embed_all

        batch = embed_all(model, data.examples("labelled"))
        rows, labels = batch.images.double().numpy(), batch.labels.numpy()
        return Rows(rows, labels, np.arange(len(rows)), len(rows))

    def combine(self, state: State, received: Received) -> State:
        """The bank's start, or the whole classifier."""
        study = received.study
        found, number = received.arrays["sums"], received.arrays["counts"]
        if study.privacy.is_private:
            number = np.maximum(number, 1.0)
        texts = state.bank.classes
        means = np.clip(found / np.maximum(number, 1.0)[:, None], -1.0, 1.0)
        state = replace(state, means=means.astype(np.float32), sites=received.sites)
        if study.alignment.bank_start == "means":
            texts = np.zeros_like(texts)
        if study.privacy.mechanism == "prototypes":
            nearest = nearest_mean(found, number, received.deviation)
            classifier = with_texts(nearest, texts) if texts.any() else nearest
            rows, bias = as_bank(classifier, study.alignment.temperature)
            start, state = rows.astype(np.float32), replace(state, bias=bias)
        else:
            start = blended_start(texts, found, number)
        shared = state.shared | {BANK_CLASSES: start.astype(study.federation.dtype)}
        return replace(state, bank=state.bank._replace(classes=start), shared=shared)


PROTOTYPES = Prototypes()
