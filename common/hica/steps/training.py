"""Training: what the steps have in common that train weights at every site and aggregate them.

One round is local epochs from the weights that were sent, and FedAvg or another rule over what
comes back (McMahan et al. 2017, Algorithm 1). The learning rate falls as a half cosine over the
stage.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.seeds import derived_seed
from hica.steps.arrays import LARGEST_CHANGE, WEIGHTS_ARRAY, Array
from hica.steps.reach import Rates, Reach
from hica.steps.state import WEIGHTS, State, weights_of
from hica.steps.step import Answer, Kept, Received, Role, SiteData, Stage, Step, Turn, Update
from hica.study import Study
from hica.wire.details import Trained
from hica.wire.messages import Reply, Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from torch import Tensor

    from hica.method.examples import Examples
    from hica.method.local_training import Loss, Schedule
    from hica.method.model import AlignmentModel

ALL_SITES = "all sites"
"""In place of a site's name, where only the sum over them is known."""


@dataclass(frozen=True)
class Lesson:
    """What a site is to learn in a round; a trainer, private or not, teaches it.

    Attributes:
        examples: None where reviewers have rejected all: then the weights stay as they are.
        loss: Of each image.
        schedule: Lengths and rates.
        pull: Class [C, D] and finding [M, D] texts that a trained bank is pulled to.
        counted: Images that the site's update stands for.
        keep: See `Answer.keep`.
    """

    examples: Examples
    loss: Loss
    schedule: Schedule
    pull: tuple[Tensor, Tensor]
    counted: int
    keep: Mapping[str, Kept] = field(default_factory=dict)


Trainer = Callable[["AlignmentModel", Lesson], "float | None"]
"""Trains a model in place; gives the mean loss, or None where it may not be told."""


class Training(Step):
    """A step that trains weights at every site and aggregates them; its rounds are in `stage`.

    Nobody sees a single update in a secure sum: each site bounds its own, and only rules that need
    sums are allowed. Otherwise the rule takes single updates, as LoRA's mean and krum need them.
    """

    role: Role
    details = Trained
    stage: Stage

    @abstractmethod
    def rounds(self, study: Study) -> int:
        """How many rounds the study has of it."""

    @abstractmethod
    def batches(self, study: Study) -> tuple[int, int]:
        """Images of a batch and local epochs of a round, from which private steps are counted."""

    @abstractmethod
    def rates(self, study: Study) -> Rates:
        """Learning rates and decay of the first round."""

    def most_taught(self, study: Study) -> int:
        """The largest number of images that a site learns from in a round."""
        return self.most_images(study)

    def rate(self, study: Study, number: int) -> float:
        """Of a round, as a share of the first one's: half a cosine."""
        return 0.5 * (1.0 + math.cos(math.pi * number / self.rounds(study)))

    def reach(self, study: Study, number: int) -> Reach:
        """How far a site moves the weights in a round."""
        batch, epochs = self.batches(study)
        steps = epochs * math.ceil(self.most_taught(study) / batch)
        rate = self.rate(study, number)
        return Reach.of_steps(self.rates(study), rate, steps, study.federation.dtype)

    @abstractmethod
    def lesson(self, data: SiteData, model: AlignmentModel, request: Request) -> Lesson:
        """What the site learns in this round."""

    def turns(self, study: Study) -> Iterator[Turn]:
        """Every round of the stage."""
        rounds = self.rounds(study)
        for number in range(rounds):
            title = f"{self.name} {number + 1}/{rounds}"
            settings = {"rate": self.rate(study, number)}
            yield Turn(self, (self.stage, number), number, title, settings)

    def answers(self, study: Study) -> tuple[Array, ...]:
        """The trained weights; the range is that of what a round changes."""
        dtype = study.federation.dtype
        return (Array(WEIGHTS_ARRAY, (), dtype, -LARGEST_CHANGE, LARGEST_CHANGE),)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """Not without a trainer: see `taught`."""
        raise TypeError(f"{self.name} is answered with a trainer: use `taught`")

    def taught(
        self, data: SiteData, model: AlignmentModel, request: Request, train: Trainer
    ) -> Answer:
        """The site's half: train, and give the weights in the precision they came in."""
        lesson = self.lesson(data, model, request)
        loss = train(model, lesson)
        dtype = request.study.federation.dtype
        arrays = {
            f"{WEIGHTS}{name}": value.detach().cpu().numpy().astype(dtype, order="C")
            for name, value in model.shared().items()
        }
        return Answer(arrays, lesson.counted, {} if loss is None else {"loss": loss}, lesson.keep)

    def check(self, study: Study, state: State, reply: Reply, sites: int = 1) -> None:
        """Refuse an update without examples, without a loss, or further than a round can go."""
        if reply.examples < 1:
            raise MessageError("an update that no example stands behind")
        if sites > 1:
            return  # each site has bounded its own
        loss = reply.details.get("loss")
        # A private site tells no loss: it would need noise, too.
        if not study.privacy.is_private and not (isinstance(loss, float) and math.isfinite(loss)):
            raise MessageError(f"loss is {loss!r}")
        limit = study.federation.max_update_norm
        squares = (
            np.square(value.astype(np.float64) - state.shared[name]).sum()
            for name, value in weights_of(reply.arrays).items()
        )
        norm = math.sqrt(sum(squares))
        if norm > limit:
            raise MessageError(
                f"update of norm {norm:.3g}, federation.max_update_norm is {limit:g}"
            )
        self._check_moved(study, reply.round, state, weights_of(reply.arrays))

    def _check_moved(
        self, study: Study, number: int, state: State, trained: Mapping[str, NDArray[Any]]
    ) -> None:
        reach = self.reach(study, number)
        for name, value in trained.items():
            reach.check(name, state.shared[name], value)

    def combine(self, state: State, received: Received) -> State:
        """The coordinator's half: the rule's next weights.

        Raises:
            MessageError: The mean in a secure sum is further than a round can go.
        """
        updates = [
            Update(reply.site, weights_of(reply.arrays), reply.examples)
            for reply in received.replies
        ]
        if not updates:
            self._check_moved(received.study, received.turn.round, state, received.arrays)
            updates = [Update(ALL_SITES, received.arrays, round(received.examples))]
        rule = received.rule
        shared = rule.aggregate(received.turn.round, state.shared, updates)
        return replace(state, shared=shared, optimiser=rule.state())

    def told(self, received: Received) -> dict[str, Any]:
        """Mean loss over all images and of each site, where sites tell it."""
        private, replies = received.study.privacy.is_private, received.replies
        told: dict[str, Any] = {"loss": None, "site_loss": {}}
        if replies and not private:
            told["site_loss"] = {reply.site: reply.details["loss"] for reply in replies}
            weighted = sum(reply.details["loss"] * reply.examples for reply in replies)
            told["loss"] = weighted / sum(reply.examples for reply in replies)
        elif not private:
            told["loss"] = received.loss / received.examples
        return told | {"lora_discarded": received.rule.last_discarded if replies else 0.0}


def plain_trainer(data: SiteData, request: Request) -> Trainer:
    """Local epochs whose random draws are the same if the round is repeated."""
    import torch

    from hica.method.local_training import train

    seed = derived_seed(data.study.study.seed, data.name, request.kind, request.round)
    generator = torch.Generator().manual_seed(seed)

    def trainer(model: AlignmentModel, lesson: Lesson) -> float:
        if not len(lesson.examples):  # reviewers have rejected all, or all patients have withdrawn
            return 0.0
        return train(model, lesson.examples, lesson.loss, lesson.schedule, generator, lesson.pull)

    return trainer


def texts_of(request: Request, model: AlignmentModel) -> tuple[Tensor, Tensor]:
    """Class [C, D] and finding [M, D] texts that a trained bank is pulled to, beside the model."""
    import torch

    device = model.centre.device
    bank = State.from_arrays(request.arrays).bank
    return torch.from_numpy(bank.classes).to(device), torch.from_numpy(bank.findings).to(device)
