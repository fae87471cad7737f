"""Step: the contract of a federated step, both of whose halves stand in one file.

A step declares what it is called, whose data it takes, when a study asks for it, which arrays it
asks with and answers with, and how far one patient moves them. Its two halves are

    answer(data, model, request)      at a site: exact and pure
    combine(state, received)          at the coordinator: the state after it

Plan, budget, policy, consent, the site's guard and the coordinator read the declarations and repeat
none of them. Noise, ledger and masks stand around `answer` (`hica.privacy.release`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hica.errors import ConfigurationError
from hica.steps.arrays import Array
from hica.steps.state import Bank, State, Weights
from hica.study import Study
from hica.wire.details import Details, Nothing
from hica.wire.messages import Arrays, Reply, Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from torch import Tensor

    from hica.method.examples import Examples
    from hica.method.local_training import Batch
    from hica.method.model import AlignmentModel

Role = Literal["labelled", "unlabelled", "test"]
"""Whose data: the shots, the images whose labels are not used, the held-out patients."""
Part = Literal["labelled", "unlabelled", "centre", "test", "rest"]
"""Images that a site prepares: those of a role, a few for the centre, those beyond the shots."""
Kept = Mapping[str, NDArray[Any]]


class Stage(IntEnum):
    """The parts of a run, in order."""

    START = 0
    PRETRAINING = 1
    CLASSES = 2
    ALIGNMENT = 3
    CALIBRATION = 4
    END = 5


@dataclass(frozen=True)
class Turn:
    """One exchange of a run, as `hica.steps.plan` lists it.

    Attributes:
        step: What is asked.
        at: Stage and number in it, which say when.
        round: Of the request; draws at a site depend on it.
        title: Shown while it runs, for example `alignment 3/10`.
        settings: What the request says beside its arrays; JSON.
        optional: Whether a run may leave it out.
    """

    step: Step
    at: tuple[Stage, int]
    round: int
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Answer:
    """What a site has for a request, exact.

    Attributes:
        arrays: By their declared names.
        examples: How many images stand behind them.
        details: JSON that leaves beside them.
        keep: What the site keeps for later steps of the study, by name; does not leave.
        result: What the site's own people read of a study that is over; JSON, does not leave.
    """

    arrays: Arrays = field(default_factory=dict)
    examples: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    keep: Mapping[str, Kept] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Rows:
    """The parts of which a statistic is the sum, for who must bound what each patient adds.

    Attributes:
        rows: [n, D], of norm 1 at most; longer ones are scaled.
        groups: [n] which sum each row is in; -1: in none.
        images: [n] the image each row is of.
        examples: How many images there are.
    """

    rows: NDArray[np.float64]
    groups: NDArray[np.int64]
    images: NDArray[np.int64]
    examples: int


class SiteData(Protocol):
    """What a step sees of a site: images by role, and what was kept of earlier steps."""

    @property
    def name(self) -> str:
        """The site's name, from which its random draws come."""

    @property
    def study(self) -> Study:
        """The study that is answered."""

    @property
    def rest_shares(self) -> NDArray[np.float64] | None:
        """[C] shares of the classes among the images beyond the shots; None: not known."""

    @property
    def withdrawn(self) -> int:
        """Patients who have withdrawn since the study was drawn here."""

    @property
    def shots_in_pool(self) -> NDArray[np.bool_]:
        """[n] which of the unlabelled images are shots, too."""

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """[n] from which of the unlabelled images nothing is to be learnt, as reviewers say."""

    def size(self, part: Part) -> int:
        """How many images a part has."""

    def told(self, role: Role) -> int:
        """How many images of a role the coordinator is told of; patients, in a private study.

        There they are rounded, and count as public (`hica.cohort.private_draw`).
        """

    def examples(self, part: Part) -> Examples:
        """Some of the site's images in their training views."""

    def images(self, part: Part) -> NDArray[np.uint8]:
        """[n, 32] which image each of the examples is, however rows are ordered or named later.

        What is kept of each image has these beside it, as `images`: the image may be gone by then.
        """

    def embedded(self, part: Part, model: AlignmentModel) -> Batch:
        """Their unit embeddings under a model, on the CPU."""

    def alone(self, texts: Bank) -> AlignmentModel:
        """The model of a site that learns by the study's recipe, from these texts, with nobody.

        Models that were built before are not to be used any more: the tower is the same.
        """

    def adapted(self, learnt: State) -> AlignmentModel:
        """What the site makes of the shared model by training on its own shots; likewise."""

    def positives(self, part: Part, rows: Tensor, labels: Tensor) -> Tensor:
        """Findings [n, M] that some of the images may show, were these their labels."""

    def has_kept(self, name: str) -> bool:
        """Whether an earlier step has kept something of this name."""

    def kept(self, name: str) -> Kept:
        """What an earlier step has kept; a CheckpointError where there is nothing of this name."""


class Rule(Protocol):
    """An aggregation rule: how updates become the next weights; keeps its own state."""

    last_discarded: float

    def aggregate(self, round: int, current: Weights, updates: Sequence[Update]) -> Weights:
        """The next weights."""

    def state(self) -> Weights:
        """What the next round needs of the last ones."""


@dataclass(frozen=True)
class Update:
    """What one site sent back: all trained arrays, and how many examples stand behind them."""

    site: str
    arrays: Mapping[str, NDArray[Any]]
    examples: int


@dataclass(frozen=True)
class Received:
    """What the sites' answers to a turn come to.

    Attributes:
        study: The study.
        turn: What was asked.
        rule: The study's aggregation rule.
        replies: Of each site, in the order of names; none where nobody may see them.
        arrays: Σ over sites; of an update that nobody may see, the mean of the sites' weights.
        examples: Σ of examples.
        loss: Σ of losses over examples.
        sites: How many.
        deviation: Standard deviation of the noise in every number of a sum; 0: exact.
    """

    study: Study
    turn: Turn
    rule: Rule
    replies: Sequence[Reply] = ()
    arrays: Arrays = field(default_factory=dict)
    examples: float = 0.0
    loss: float = 0.0
    sites: int = 0
    deviation: float = 0.0


class Step(ABC):
    """A federated step.

    Attributes:
        name: In plan, log and report; of the file it stands in.
        kind: Flower's message type of its requests; empty: the coordinator does it alone.
        role: Sites without images of it are not asked; None: all are.
        leaves: What an answer tells, in words, for who approves.
        details: What an answer tells beside its arrays; None: `check` reads it.
        centred: Whether it needs the centre of the features.
        in_sum: Whether only the sum of the answers is needed, which secure aggregation gives.
        keeps: What a site keeps of it, by name, that later answers depend on.
        needs_noise: Whether an answer tells of patients, so that a private study puts noise on it;
            without a form for that it is refused there. Metrics are told as they are.
        best_effort: Whether the run goes on without any answer to it, and a site takes part in the
            study whose policy does not let it answer.
    """

    name: str
    kind: str
    role: Role | None
    leaves: str
    details: type[Details] | None = Nothing
    centred = True
    in_sum = True
    keeps: tuple[str, ...] = ()
    needs_noise = True
    best_effort = False

    @abstractmethod
    def turns(self, study: Study) -> Iterator[Turn]:
        """When a study asks for it."""

    def asks(self, study: Study) -> tuple[Array, ...]:
        """Arrays of a request beside `STATE_ARRAYS` and the weights."""
        return ()

    def answers(self, study: Study) -> tuple[Array, ...]:
        """Arrays of an answer."""
        return ()

    def needs(self, study: Study) -> tuple[str, ...]:
        """What a site has kept of earlier steps that the answer depends on, by name."""
        own_centre = self.centred and study.alignment.centring == "site"
        return ("centre",) if own_centre else ()

    def estimates(self, study: Study) -> tuple[str, ...]:
        """Of `centre`, `scale` and `bias`, what `combine` changes; till then they are as before."""
        return ()

    def most_images(self, study: Study) -> int:
        """The largest number of images that an answer may stand for."""
        if self.role is None:
            return 0
        if self.role == "labelled":
            return study.alignment.shots * len(study.classes)
        return study.pretraining.max_images

    def asked(self, study: Study, state: State) -> dict[str, NDArray[Any]]:
        """The arrays of `asks`: what the state holds under their names."""
        return {array.name: getattr(state, array.name) for array in self.asks(study)}

    @abstractmethod
    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """The site's half: what it has for a request. Exact, and without effects."""

    def check(self, study: Study, state: State, reply: Reply, sites: int = 1) -> None:
        """Refuse a well-formed reply, of one site or the sum over `sites`, that must not be used.

        `state` is as it was asked with.

        Raises:
            MessageError: No right answer is like that.
        """
        del state
        if study.privacy.is_private:
            return  # with noise there is no bound
        for array in self.answers(study):
            array.check(reply.arrays[array.name], sites)

    @abstractmethod
    def combine(self, state: State, received: Received) -> State:
        """The coordinator's half: the state after the step."""

    def told(self, received: Received) -> dict[str, Any]:
        """What the report says of it, after `combine`."""
        return {}

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class Statistic(Step):
    """A step that asks for sums over images; a private study gets them with noise."""

    role: Role

    def rows(self, data: SiteData, model: AlignmentModel, request: Request) -> Rows:
        """The parts of the sums `sums` and `counts`, of a private study.

        Raises:
            ConfigurationError: The step has no bound on what one patient changes.
        """
        raise ConfigurationError(
            f"{self.name}: nothing bounds what one patient changes of it, so a private study "
            "cannot ask for it"
        )

    def own(self, data: SiteData, model: AlignmentModel, request: Request) -> Mapping[str, Kept]:
        """What the site keeps for itself of a private study's statistic, exact; see `Answer`."""
        return {}
