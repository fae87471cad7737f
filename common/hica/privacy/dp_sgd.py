"""DP-SGD: training in which no patient changes a step by more than a bound, drowned in noise.

    g̃ = ( Σ_u g_u·min(1, C / |g_u|) + N(0, σ²C²) ) / B

Abadi et al., 2016 (arXiv 1607.00133), Algorithm 1. u runs over units, patients or images, each
drawn with probability q (Poisson sampling); g_u is the mean of the gradients of u's images and of
their views, over all trained weights together; B is the expected number of units. Averaging the
views of an image before clipping costs no privacy and steadies the gradient (De et al., 2022, arXiv
2204.13650). Neighbouring data sets differ by one unit added or removed, of which the sum changes by
C at most; what a whole training costs is `hica.privacy.accountant`'s to say.

Everything is computed in float32 (on a GPU too: no autocast) and summed in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hica.errors import ConfigurationError
from hica.method.examples import Examples
from hica.method.local_training import Loss, adamw
from hica.method.model import AlignmentModel
from hica.privacy.gradients import Draw, per_unit_gradients
from hica.privacy.noise import NoiseSource, on_grid
from hica.privacy.refusals import couples_images, reached, refusals
from hica.wire.weight_names import BANK_CLASSES, BANK_FINDINGS


@dataclass(frozen=True)
class PrivateSchedule:
    """How a site trains by DP-SGD in one round.

    Attributes:
        steps: Number of steps.
        sampling_rate: q, with which each unit takes part in a step.
        noise_multiplier: σ, the noise's standard deviation in units of C.
        max_norm: C, to which the gradient of a unit is clipped.
        views: Views of an image averaged in a step, drawn anew in each; all where it has fewer.
        micro_batch: Rows (images times views) whose gradients are held at a time: memory, and
            nothing else.
        learning_rate: AdamW's, for the tower.
        expected_units: B, by which the noisy sum is divided: q times a number of units that is
            public, as q and `steps` that follow from it.
        bank_learning_rate: AdamW's, for the text bank.
        weight_decay: AdamW's, for the tower alone: the bank is held by `text_pull`.
        text_pull: Weight of ‖bank − anchor‖².
    """

    steps: int
    sampling_rate: float
    noise_multiplier: float
    max_norm: float
    views: int
    micro_batch: int
    learning_rate: float
    expected_units: float
    bank_learning_rate: float = 0.0
    weight_decay: float = 0.0
    text_pull: float = 0.0

    def __post_init__(self) -> None:
        """Check the bounds that privacy rests on.

        Raises:
            ValueError: A value out of its range.
        """
        in_range = {
            "sampling_rate in (0, 1]": 0 < self.sampling_rate <= 1,
            "noise_multiplier ≥ 0": self.noise_multiplier >= 0,
            "max_norm finite and > 0": 0 < self.max_norm < float("inf"),
            "views ≥ 1": self.views >= 1,
            "micro_batch ≥ 1": self.micro_batch >= 1,
            "expected_units > 0": self.expected_units > 0,
        }
        wrong = [rule for rule, holds in in_range.items() if not holds]
        if wrong:
            raise ValueError(f"a private schedule needs {', '.join(wrong)}")


def train_privately(
    model: AlignmentModel,
    examples: Examples,
    loss: Loss,
    schedule: PrivateSchedule,
    units: Sequence[str],
    noise: NoiseSource,
    anchor: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Train `model` in place. Of the images nothing but its weights tells: no loss is returned.

    Weights that the loss does not use (the text bank in stage 1) depend on no image; they get no
    noise and stay as they are.

    Args:
        model: Already on its device; its shared weights are changed.
        examples: On any device; none is a site without patients.
        loss: Per-image loss in which no image sees another.
        schedule: Lengths, rates and noise.
        units: [n] whose each image is: the patient, or a name of its own.
        noise: Decides who takes part, which views are shown, and the noise.
        anchor: Class [C, D] and finding [M, D] texts the bank is pulled to; public.

    Raises:
        ConfigurationError: The model or the loss cannot be trained privately (`refusals`).
        ValueError: `units` and `examples` differ in length.
    """
    if len(units) != len(examples):
        raise ValueError(f"{len(units)} units for {len(examples)} images")
    contrast = "batch" if couples_images(model, loss) else "bank"
    problems = refusals(model, contrast, examples.hidden.new_zeros((1, *examples.hidden.shape[2:])))
    if problems:
        raise ConfigurationError('privacy.mechanism = "dp-sgd": ' + "; ".join(problems))
    shared = model.shared()
    trained = {name: shared[name] for name in reached(model, loss)}
    members = members_of(units)
    deviation = schedule.noise_multiplier * schedule.max_norm
    optimiser = adamw(
        trained, schedule.learning_rate, schedule.bank_learning_rate, schedule.weight_decay
    )
    for _ in range(schedule.steps):
        draw = draw_rows(members, examples.hidden.shape[1], schedule, noise)
        sums = clipped_sum(model, examples, loss, draw, schedule, list(trained))
        for name, parameter in trained.items():
            drawn = torch.from_numpy(noise.normal(tuple(parameter.shape))).to(parameter.device)
            noisy = (
                on_grid(sums[name].view_as(parameter) + deviation * drawn, deviation)
                / schedule.expected_units
            )
            parameter.grad = noisy.to(parameter.dtype)
        if anchor is not None and schedule.text_pull > 0:
            _add_pull(trained, anchor, schedule.text_pull)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def clipped_sum(
    model: AlignmentModel,
    examples: Examples,
    loss: Loss,
    draw: Draw,
    schedule: PrivateSchedule,
    names: Sequence[str],
) -> dict[str, Tensor]:
    """Sums [P] in float64, by name, of the drawn units' gradients, each clipped to C.

    This is what noise is added to: adding or removing a unit changes it by C at most, in the norm
    over all sums. The model is in training mode and not changed; in the loss no image sees another,
    and it depends on the weights of `names`. Where no unit was drawn nothing is computed, and the
    sums are zero.
    """
    shared, device = model.shared(), model.centre.device
    sums = {
        name: torch.zeros(shared[name].numel(), dtype=torch.float64, device=device)
        for name in names
    }
    for gradients in per_unit_gradients(model, examples, loss, draw, schedule.micro_batch):
        norms = [
            torch.linalg.vector_norm(gradients[name], dim=1, dtype=torch.float64) for name in names
        ]
        norm = torch.stack(norms).norm(dim=0)  # (u,)
        # A millionth below C, for what rounding to float32 may add.
        scale = (schedule.max_norm / (norm * (1 + 1e-6))).clamp(max=1.0)
        for name in names:
            sums[name] += scale @ gradients[name].double()
    return sums


def members_of(units: Sequence[str]) -> list[Tensor]:
    """Indices of the images of each distinct unit."""
    members: dict[str, list[int]] = {}
    for image, unit in enumerate(units):
        members.setdefault(unit, []).append(image)
    return [torch.tensor(images) for images in members.values()]


def draw_rows(
    members: Sequence[Tensor], view_count: int, schedule: PrivateSchedule, noise: NoiseSource
) -> Draw:
    """Draw the units of a step and the views shown of their images, of `view_count` each.

    `members` are the indices of each unit's images. There are no rows where no unit was drawn.
    """
    takes_part = noise.uniform(len(members)) < schedule.sampling_rate
    drawn = [part for part, taken in zip(members, takes_part, strict=True) if taken]
    views = min(schedule.views, view_count)
    sizes = torch.tensor([len(part) for part in drawn], dtype=torch.long)
    images = torch.cat([torch.empty(0, dtype=torch.long), *drawn])
    ranks = noise.uniform(len(images) * view_count).reshape(len(images), view_count)
    shown = torch.from_numpy(ranks.argsort(axis=1)[:, :views])  # (images, views)
    rows = sizes * views
    return Draw(
        images=images.repeat_interleave(views),
        views=shown.flatten(),
        units=torch.arange(len(drawn)).repeat_interleave(rows),
        shares=(1.0 / rows.double()).repeat_interleave(rows),
    )


def _add_pull(
    trained: dict[str, torch.nn.Parameter], anchor: tuple[Tensor, Tensor], pull: float
) -> None:
    """Add the gradient of pull·‖bank − anchor‖², which depends on no image."""
    for name, target in zip((BANK_CLASSES, BANK_FINDINGS), anchor, strict=True):
        if name in trained:
            gradient = trained[name].grad
            assert gradient is not None
            gradient += 2 * pull * (trained[name].detach() - target)
