"""Alignment: stage 2, local epochs of the three-term objective on the labelled shots.

L = L_global + λ1·L_local + λ2·L_cross (arXiv 2501.09294; `hica.method.objective`). A study may have
every site spread its shots' labels to unlabelled images first (`hica.method.label_propagation`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hica.seeds import derived_seed
from hica.steps.pretraining import matched
from hica.steps.reach import Rates
from hica.steps.step import Kept, SiteData, Stage
from hica.steps.training import Lesson, Training, texts_of
from hica.study import Study
from hica.wire.messages import Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.examples import Examples
    from hica.method.local_training import Loss, Schedule
    from hica.method.model import AlignmentModel


class Alignment(Training):
    """A round of stage 2."""

    name = "alignment"
    kind = "train.align"
    role = "labelled"
    leaves = "weights trained on the labelled images, and the mean loss"
    stage = Stage.ALIGNMENT

    def rounds(self, study: Study) -> int:
        """Those of `[alignment]`; none where class means are all that a study learns."""
        return 0 if study.privacy.mechanism == "prototypes" else study.alignment.rounds

    def batches(self, study: Study) -> tuple[int, int]:
        """Those of `[alignment]`."""
        return study.alignment.batch_size, study.alignment.local_epochs

    def rates(self, study: Study) -> Rates:
        """Those of `[alignment]`."""
        stage = study.alignment
        return Rates(stage.learning_rate, stage.bank_learning_rate, stage.weight_decay)

    def most_taught(self, study: Study) -> int:
        """The shots, and the images that their labels may be spread to."""
        spread = study.pretraining.max_images if study.alignment.label_propagation else 0
        return self.most_images(study) + spread

    def lesson(self, data: SiteData, model: AlignmentModel, request: Request) -> Lesson:
        """The shots, and what their labels are spread to."""
        stage = data.study.alignment
        shots = examples = data.examples("labelled")
        keep: dict[str, Kept] = {}
        if stage.label_propagation:
            labels = spread_labels(data, model)
            keep = {"spread": {"labels": labels, "images": data.images("unlabelled")}}
            examples = with_spread(data, labels)
        return Lesson(
            examples,
            loss_of(data.study),
            schedule_of(data.study, float(request.settings["rate"])),
            texts_of(request, model),
            # A label that was spread counts in training, but not beside other sites' own labels.
            len(shots),
            keep,
        )


def loss_of(study: Study) -> Loss:
    """The three-term objective of a study, of each image."""
    from hica.method.local_training import alignment_loss

    stage = study.alignment
    return alignment_loss(
        stage.temperature,
        stage.local_weight,
        stage.cross_weight,
        stage.margin,
        stage.assignment,
        stage.contrast,
    )


def schedule_of(study: Study, rate: float = 1.0) -> Schedule:
    """Lengths and rates of a round, the rates times `rate`."""
    from hica.method.local_training import Schedule

    stage = study.alignment
    return Schedule(
        stage.local_epochs,
        stage.batch_size,
        stage.learning_rate * rate,
        stage.bank_learning_rate * rate,
        stage.weight_decay,
        stage.text_pull,
    )


def spread_labels(data: SiteData, model: AlignmentModel) -> NDArray[np.int64]:
    """Labels [n] spread from the shots to the unlabelled images; -1 where none is sure enough.

    They are decided once, at the site's first round of stage 2: after that they would confirm
    themselves. Each stays with its image, whatever has become of the manifest since.
    """
    from hica.method.label_propagation import UNKNOWN, propagated

    if data.has_kept("spread"):
        images = data.images("unlabelled")
        kept = np.full(len(images), UNKNOWN)
        rows, known = matched(images, data.kept("spread"))
        kept[rows] = known
        return kept
    near, far = (data.embedded(part, model) for part in ("labelled", "unlabelled"))
    one, other = (part.images.double().numpy() for part in (near, far))
    seed = derived_seed(data.study.study.seed, data.name, "spread") % 2**32
    labels = propagated(one, data.examples("labelled").labels.numpy(), other, seed)
    return np.where(data.shots_in_pool, UNKNOWN, labels)


def with_spread(data: SiteData, labels: NDArray[np.int64]) -> Examples:
    """The shots, and the unlabelled images that have got a label [n] from them.

    Those that reviewers have rejected are left out; accepted again, they have their label.
    """
    import torch

    from hica.method.examples import joined

    spread = torch.from_numpy(labels)
    index = torch.nonzero((spread >= 0) & ~torch.from_numpy(data.rejected))[:, 0]
    positives = data.positives("unlabelled", index, spread[index])
    more = replace(
        data.examples("unlabelled").rows(index), labels=spread[index], positives=positives
    )
    return joined(data.examples("labelled"), more)


ALIGNMENT = Alignment()
