"""Small models and examples, a site that holds them, and float64 where gradients are compared."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hica.errors import CheckpointError
from hica.images.preprocess import Preprocess
from hica.method.examples import Examples
from hica.method.local_training import Batch, embed_all, moments
from hica.method.model import AlignmentModel
from hica.steps.plan import plan
from hica.steps.state import Bank, State
from hica.steps.step import Step, Turn
from hica.study import Study
from hica.text.bank import ClassTexts, TextBank
from hica.towers import ImageTower, load_image_tower
from hica.towers.adaptation import adapt
from hica.wire.messages import Request

TEXTS = [("a", ["one"], ["x", "y"], False), ("b", ["two"], ["z"], False)]


def unit_rows(count: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def load(name: str) -> ImageTower:
    if name != "open_clip":
        return load_image_tower(name, image_size=64)
    import open_clip

    from hica.towers.openclip_towers import OpenCLIPImageTower

    half = (0.5, 0.5, 0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = open_clip.transformer.VisionTransformer(64, 16, 32, 2, 2, 4.0, output_dim=24)
    return OpenCLIPImageTower(visual, name, Preprocess(64, half, half))


def build_model(name: str, train: str, **arguments: bool) -> AlignmentModel:
    """With every trained weight and the centre off its special start (zeros of LoRA, adapter)."""
    tower = adapt(load(name), train, adapter_width=8, lora_rank=2)
    dim = tower.tower.dim
    bank = TextBank.assemble(TEXTS, unit_rows(2, dim, 0), unit_rows(3, dim, 1))
    model = AlignmentModel(tower, bank, arguments.pop("train_text_bank", True), **arguments)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in [*model.shared().values(), model.centre]:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def build_examples(
    model: AlignmentModel,
    groups: Sequence[str],
    views: int = 2,
    texts: Sequence[ClassTexts] = TEXTS,
    seed: int = 3,
) -> Examples:
    """Random pixels; image 0 shows one region less, and of image 1 no region is valid."""
    tower, n = model.tower, len(groups)
    side, grid = tower.tower.preprocess.size, tower.tower.grid
    generator = torch.Generator().manual_seed(seed)
    shape = (n * views, 3, side, side)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    region_weights = torch.rand(n, views, 3, grid, grid, generator=generator)
    region_weights[:1, :, 2] = 0.0
    valid = torch.ones(n, views, 3, dtype=torch.bool)
    valid[:1, :, 2] = False
    valid[1:2] = False
    hidden = tower.frozen(pixels, region_weights.flatten(0, 1))
    labels = torch.arange(n) % 2
    bank = TextBank.assemble(texts, *model.unit_bank())
    return Examples(
        hidden=hidden.unflatten(0, (n, views)),
        region_weights=region_weights,
        valid=valid,
        labels=labels,
        positives=bank.positives(labels, [()] * n),
        groups=tuple(groups),
    )


class StubSite:
    """A site whose images are in memory: what a step sees of it (`hica.steps.step.SiteData`).

    Attributes:
        model: The study's, with weights that nobody has trained yet, centred at its own images.
        looked: Every part whose images were looked at.
        state: What was kept.
    """

    def __init__(self, study: Study, patients: Mapping[str, Sequence[str]], name: str = "north"):
        self.study, self.name = study, name
        tower = adapt(load("tiny"), study.model.train, adapter_width=study.model.adapter_width)
        rows = [unit_rows(count, tower.tower.dim, count) for count in self._texts(study)]
        bank = TextBank.assemble(study.class_texts, *rows)
        private, trained = study.privacy.is_private, study.alignment.train_text_bank
        self.model = AlignmentModel(tower, bank, trained, unit_features=private)
        self.parts = {
            part: self.draw(groups, 2 if part == "labelled" else 1, seed)
            for seed, (part, groups) in enumerate(patients.items())
        }
        found = moments(self.model, self.parts["unlabelled"])
        self.model.centre.copy_(found.sums / found.counts[:, None])
        self.looked: list[str] = []
        self.state: dict[str, Mapping[str, np.ndarray]] = {}
        self.rest_shares: np.ndarray | None = None
        self.withdrawn = 0
        self.rejected_rows: list[int] = []
        self.shots_in_pool = np.zeros(len(patients.get("unlabelled", ())), dtype=bool)

    @property
    def rejected(self) -> np.ndarray:
        return np.isin(np.arange(self.size("unlabelled")), self.rejected_rows)

    @staticmethod
    def _texts(study: Study) -> tuple[int, int]:
        return len(study.classes), len(study.finding_names)

    def draw(self, groups: Sequence[str], views: int, seed: int) -> Examples:
        """Random images of these patients."""
        return build_examples(self.model, groups, views, self.study.class_texts, seed)

    def asked_with(self) -> State:
        """The state of the coordinator from which the model is."""
        dtype, dim = self.study.federation.dtype, self.model.centre.shape[1]
        return State(
            shared={
                name: value.detach().numpy().astype(dtype)
                for name, value in self.model.shared().items()
            },
            bank=Bank(self.model.classes.detach().numpy(), self.model.findings.detach().numpy()),
            centre=self.model.centre.numpy(),
            scale=np.ones((2, dim), np.float32),
            bias=np.zeros(len(self.study.classes)),
            texts=Bank(self.model.classes.detach().numpy(), self.model.findings.detach().numpy()),
            centroids=unit_rows(self.study.pretraining.clusters, dim, 9).double().numpy(),
            means=np.eye(len(self.study.classes), dim, dtype=np.float32),
            sites=2,
        )

    def size(self, part: str) -> int:
        return len(self.parts.get(part, ()))

    def told(self, role: str) -> int:
        if role == "test" or not self.study.privacy.is_private or role not in self.parts:
            return self.size(role)
        groups = self.parts[role].groups
        return len(groups if self.study.privacy.unit == "image" else set(groups))

    def examples(self, part: str) -> Examples:
        self.looked.append(part)
        return self.parts[part]

    def images(self, part: str) -> np.ndarray:
        count = self.size(part)
        return np.arange(32 * count, dtype=np.uint8).reshape(count, 32)

    def embedded(self, part: str, model: AlignmentModel) -> Batch:
        return embed_all(model, self.examples(part).first_views(1))

    def positives(self, part: str, rows: Tensor, labels: Tensor) -> Tensor:
        bank = TextBank.assemble(self.study.class_texts, *self.model.unit_bank())
        return bank.positives(labels, [()] * len(rows))

    def has_kept(self, name: str) -> bool:
        return name in self.state

    def kept(self, name: str) -> Any:
        if name not in self.state:
            raise CheckpointError(f"{name}: missing")
        return self.state[name]

    def keep(self, kept: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self.state |= kept


PATIENTS = {
    "labelled": ["p0", "p1", "p2", "p3"],
    "unlabelled": ["p0", "p1", "p4", "p4", "p5", "p5"],
    "centre": ["p0", "p1", "p4"],
    "test": ["q0", "q1", "q2", "q3", "q4", "q5"],
}


@pytest.fixture
def new_site() -> Callable[..., StubSite]:
    """`new_site(study, labelled=[…], …)`: patients of each part, where not those of `PATIENTS`."""
    return lambda study, name="north", **parts: StubSite(study, PATIENTS | parts, name)


def turns_of(study: Study, step: Step) -> list[Turn]:
    return [turn for turn in plan(study) if turn.step is step]


@pytest.fixture
def turns() -> Callable[[Study, Step], list[Turn]]:
    """The turns of one step in the plan of a study."""
    return turns_of


@pytest.fixture
def ask() -> Callable[..., Request]:
    """The request of a step's turn, with the state it is asked with."""

    def ask(study: Study, step: Step, state: State, number: int = 0) -> Request:
        turn = turns_of(study, step)[number]
        arrays = {**state.arrays(), **step.asked(study, state)}
        return Request(step.kind, study, turn.round, dict(turn.settings), arrays)

    return ask


@pytest.fixture(scope="session")
def new_model() -> Callable[..., AlignmentModel]:
    return build_model


@pytest.fixture(scope="session")
def new_examples() -> Callable[..., Examples]:
    return build_examples


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """What casts to float32 casts to float64 instead."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
