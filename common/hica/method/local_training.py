"""A site's epochs in either stage, from cached inputs.

Nothing here knows of files or messages. Every random draw comes from a generator the caller
seeds per round, so a round repeated after a crash gives the same weights to the bit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hica.device import autocast
from hica.method.examples import Examples
from hica.method.model import AlignmentModel
from hica.method.objective import (
    Assignment,
    Contrast,
    batch_global_loss,
    batch_local_loss,
    cross_loss,
    global_loss,
    local_loss,
)


class Batch(NamedTuple):
    """One view of some images, embedded: unit rows throughout."""

    images: Tensor  # [B, D]
    regions: Tensor  # [B, K, D]
    valid: Tensor  # [B, K]
    labels: Tensor  # [B]
    positives: Tensor  # [B, M]


EMBEDDED = 32
"""Images embedded at a time: on a CPU, what more of them leave behind outgrows its cache."""

Loss = Callable[[AlignmentModel, Batch], Tensor]
"""Per-image loss [B]."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a site trains in one round.

    Attributes:
        epochs: Passes over the examples.
        batch_size: Images per step.
        learning_rate: AdamW's, for the tower.
        bank_learning_rate: AdamW's, for the text bank.
        weight_decay: AdamW's, for the tower alone: the bank is held by `text_pull`.
        text_pull: Weight of ‖bank − anchor‖².
    """

    epochs: int
    batch_size: int
    learning_rate: float
    bank_learning_rate: float = 0.0
    weight_decay: float = 0.0
    text_pull: float = 0.0


def alignment_loss(
    temperature: float,
    local_weight: float,
    cross_weight: float,
    margin: float,
    assignment: Assignment,
    contrast: Contrast,
) -> Loss:
    """Stage 2's objective, L = L_global + λ1·L_local + λ2·L_cross (`hica.method.objective`).

    The temperature is τ, the weights are λ1 and λ2, the margin is δ, in cosine. `assignment` says
    which positives a region is pulled to (`local_loss`); `contrast` is `bank`, against the shared
    texts, or `batch`, the paper's form (not for DP). Unlabelled images must be left out.
    """

    def three_terms(model: AlignmentModel, batch: Batch) -> Tensor:
        images, regions, valid, labels, positives = batch
        classes, findings = model.unit_bank()
        if contrast == "bank":
            whole = global_loss(images, classes, labels, temperature)
            local = local_loss(regions, valid, findings, positives, temperature, assignment)
        else:
            whole = batch_global_loss(images, classes[labels], temperature)
            local = batch_local_loss(regions, valid, findings, positives, temperature, assignment)
        cross = cross_loss(images, classes, labels, margin)
        return whole + local_weight * local + cross_weight * cross

    return three_terms


def pseudo_label_loss(centroids: Tensor, temperature: float) -> Loss:
    """Stage 1's objective: softmax over cosines / temperature to the centroids [k, D] of any norm.

    The centroids are shared: a classifier that is the same at all sites, and fixed.
    """
    directions = functional.normalize(centroids, dim=-1)

    def toward_centroids(_: AlignmentModel, batch: Batch) -> Tensor:
        logits = batch.images @ directions.T / temperature
        return functional.cross_entropy(logits, batch.labels, reduction="none")

    return toward_centroids


def train(
    model: AlignmentModel,
    examples: Examples,
    loss: Loss,
    schedule: Schedule,
    generator: torch.Generator,
    anchor: tuple[Tensor, Tensor] | None = None,
) -> float:
    """Train `model` in place; gives the mean loss per image over the last pass.

    Every image shows one view per pass.

    Args:
        model: Already on its device; its shared weights are changed.
        examples: At least one, on any device.
        loss: Per-image loss.
        schedule: Lengths and rates.
        generator: CPU generator of order and views.
        anchor: Class [C, D] and finding [M, D] texts the bank is pulled to.
    """
    optimiser = adamw(
        model.shared(), schedule.learning_rate, schedule.bank_learning_rate, schedule.weight_decay
    )
    model.train()
    mean_loss = 0.0
    for _ in range(schedule.epochs):
        total = 0.0
        order = torch.randperm(len(examples), generator=generator)
        for index in torch.split(order, schedule.batch_size):
            view = torch.randint(examples.hidden.shape[1], (len(index),), generator=generator)
            losses = loss(model, embed_batch(model, examples, index, view))
            objective = losses.mean()
            if anchor is not None and schedule.text_pull > 0:
                objective = objective + schedule.text_pull * _distance(model, anchor)
            optimiser.zero_grad(set_to_none=True)
            objective.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(losses.detach().sum())
        mean_loss = total / len(examples)
    return mean_loss


def adamw(
    weights: Mapping[str, nn.Parameter], rate: float, bank_rate: float, decay: float
) -> torch.optim.AdamW:
    """AdamW with a rate for the tower and one for the bank, which does not decay."""
    bank = [value for name, value in weights.items() if name.startswith("bank.")]
    tower = [value for name, value in weights.items() if not name.startswith("bank.")]
    groups = [
        {"params": tower, "lr": rate, "weight_decay": decay},
        {"params": bank, "lr": bank_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]])


def embed_batch(model: AlignmentModel, examples: Examples, index: Tensor, view: Tensor) -> Batch:
    """Embed view `view[i]` of image `index[i]`, on the model's device and in float32."""
    device = model.centre.device
    with autocast(device):
        images, regions = model(*examples.shown(index, view, model.centre))
    return Batch(
        images.float(),
        regions.float(),
        examples.valid[index, view].to(device),
        examples.labels[index].to(device),
        examples.positives[index].to(device),
    )


@torch.no_grad()
def embed_all(model: AlignmentModel, examples: Examples, together: int = EMBEDDED) -> Batch:
    """Embed every image, averaging its views on the sphere; the result lies on the CPU.

    `together` images are computed at a time. The last digits of one depend on how many others are:
    with 1 they do not, and tell nothing of the others.
    """
    model.eval()
    parts: list[Batch] = []
    for index in torch.split(torch.arange(len(examples)), together):
        views = [
            embed_batch(model, examples, index, torch.full_like(index, view))
            for view in range(examples.hidden.shape[1])
        ]
        images = functional.normalize(sum(v.images for v in views), dim=-1)  # type: ignore[arg-type]
        regions = functional.normalize(sum(v.regions for v in views), dim=-1)  # type: ignore[arg-type]
        parts.append(Batch(*(t.cpu() for t in (images, regions, *views[0][2:]))))
    return Batch(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _features(
    model: AlignmentModel, examples: Examples, index: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each view: images [B, D] and regions [B, K, D] before centring, float64; valid [B, K]."""
    for view in range(examples.hidden.shape[1]):
        shown = examples.shown(index, torch.full_like(index, view), model.centre)
        with autocast(model.centre.device):
            pooled, regions = model.features(*shown)
        yield pooled.cpu().double(), regions.cpu().double(), examples.valid[index, view]


def _distance(model: AlignmentModel, anchor: tuple[Tensor, Tensor]) -> Tensor:
    """‖T − T₀‖² + ‖F − F₀‖², what pulls a trained bank back to its start."""
    classes, findings = anchor
    return ((model.classes - classes) ** 2).sum() + ((model.findings - findings) ** 2).sum()


class Moments(NamedTuple):
    """Sums of raw features under the current weights, of which centre and scale are made."""

    sums: Tensor  # [2, D] float64: whole images, valid regions
    squares: Tensor  # [2, D], of the features' squares
    counts: Tensor  # [2]


@torch.no_grad()
def moments(model: AlignmentModel, examples: Examples) -> Moments:
    """Sums of features before centring, over all images and views, and over all valid regions."""
    model.eval()
    sums = torch.zeros(model.centre.shape, dtype=torch.float64)
    squares = torch.zeros_like(sums)
    counts = torch.zeros(2, dtype=torch.float64)
    for index in torch.split(torch.arange(len(examples)), EMBEDDED):
        for pooled, regions, valid in _features(model, examples, index):
            rows = (pooled, regions[valid])
            sums += torch.stack([part.sum(dim=0) for part in rows])
            squares += torch.stack([part.square().sum(dim=0) for part in rows])
            counts += torch.tensor([len(part) for part in rows], dtype=torch.float64)
    return Moments(sums, squares, counts)


@torch.no_grad()
def mean_features(model: AlignmentModel, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Features before centring of each image: the parts of `moments`, image by image.

    Gives the mean over views of the image [n, D] and of its valid regions [n, D], float64, and
    whether it has any [n].
    """
    model.eval()
    images, regions = [], []
    for index in torch.split(torch.arange(len(examples)), EMBEDDED):
        pooled, parts, valid = map(
            torch.stack, zip(*_features(model, examples, index), strict=True)
        )
        images.append(pooled.mean(dim=0))
        count = valid.sum(dim=(0, 2)).clamp(min=1).unsqueeze(1)
        regions.append((parts * valid.unsqueeze(-1)).sum(dim=(0, 2)) / count)
    return torch.cat(images), torch.cat(regions), examples.valid.any(dim=(1, 2))


def class_sums(batch: Batch, classes: int) -> tuple[Tensor, Tensor]:
    """Sums [C, D] and counts [C] of unit image embeddings per class: federated prototypes."""
    labelled = batch.labels >= 0
    sums = torch.zeros(classes, batch.images.shape[1], dtype=torch.float64)
    sums.index_add_(0, batch.labels[labelled], batch.images[labelled].double())
    return sums, torch.bincount(batch.labels[labelled], minlength=classes).double()
