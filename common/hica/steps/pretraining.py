"""Pretraining: stage 1, local epochs toward the shared centroids as a fixed classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hica.steps.arrays import CENTROIDS, Array
from hica.steps.reach import Rates
from hica.steps.step import Kept, SiteData, Stage
from hica.steps.training import Lesson, Training, texts_of
from hica.study import Study
from hica.wire.messages import Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel


class Pretraining(Training):
    """A round of stage 1."""

    name = "pretraining"
    kind = "train.pretrain"
    role = "unlabelled"
    leaves = "weights trained on your images without their labels, and the mean loss"
    stage = Stage.PRETRAINING

    def rounds(self, study: Study) -> int:
        """Those of `[pretraining]`."""
        return study.pretraining.rounds

    def batches(self, study: Study) -> tuple[int, int]:
        """Those of `[pretraining]`."""
        return study.pretraining.batch_size, study.pretraining.local_epochs

    def rates(self, study: Study) -> Rates:
        """Those of `[pretraining]`; the text bank has no part in it."""
        return Rates(study.pretraining.learning_rate, 0.0, 0.0)

    def asks(self, study: Study) -> tuple[Array, ...]:
        """The centroids."""
        return (CENTROIDS,)

    def needs(self, study: Study) -> tuple[str, ...]:
        """The clusters of the site's images, too."""
        return *super().needs(study), "pseudo_labels"

    def lesson(self, data: SiteData, model: AlignmentModel, request: Request) -> Lesson:
        """The unlabelled images with the clusters that were kept as their labels.

        Those that reviewers have rejected are not trained on. They are counted all the same: how
        many there are is nobody else's business.
        """
        import torch

        from hica.method.local_training import Schedule, pseudo_label_loss

        stage = data.study.pretraining
        examples = data.examples("unlabelled")  # an image that cannot be read is said first
        rows, labels = matched(data.images("unlabelled"), data.kept("pseudo_labels"))
        counted = len(rows)
        learnt = ~data.rejected[rows]
        rows, labels = rows[learnt], labels[learnt]
        examples = replace(examples.rows(torch.from_numpy(rows)), labels=torch.from_numpy(labels))
        centroids = torch.from_numpy(request.arrays["centroids"]).float().to(model.centre.device)
        rate = stage.learning_rate * float(request.settings["rate"])
        return Lesson(
            examples,
            pseudo_label_loss(centroids, stage.temperature),
            Schedule(stage.local_epochs, stage.batch_size, rate),
            texts_of(request, model),
            counted,
        )


def matched(images: NDArray[np.uint8], kept: Kept) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the images [n, 32] that have a pseudo-label, and these labels.

    A label is of its image, whatever has become of the manifest since it was kept.
    """
    labels = dict(zip(map(bytes, kept["images"]), kept["labels"].tolist(), strict=True))
    names = [bytes(image) for image in images]
    rows = [row for row, name in enumerate(names) if name in labels]
    found = [labels[names[row]] for row in rows]
    return np.array(rows, dtype=np.int64), np.array(found, dtype=np.int64)


PRETRAINING = Pretraining()
