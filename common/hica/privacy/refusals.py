"""What cannot be trained with differential privacy, and what to use instead.

Clipping bounds what a patient changes only where no image sees another. BatchNorm is no obstacle by
itself: as `AdaptedTower.train` sets it, it uses its stored statistics, which came with the public
weights and are neither updated nor sent, and so it is a linear map of each image alone, whose
trained scale and shift have an exact gradient for each image. It is refused where it would take the
statistics of the batch.
"""

import traceback

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from hica.method.examples import Examples
from hica.method.local_training import Batch, Loss
from hica.method.model import AlignmentModel
from hica.printable import listed
from hica.privacy.gradients import per_image_gradients


def refusals(model: AlignmentModel, contrast: str, hidden: Tensor | None = None) -> list[str]:
    """Why a model cannot be trained by DP-SGD, each reason with its remedy; none if it can be.

    The model is put into training mode and tried on one image; its weights stay as they are. That
    image is `hidden`, [1, ...] like the output of `model.tower.frozen`; None: a black image, for
    which the frozen part has to run. `contrast` is `alignment.contrast` of the study.
    """
    model.train()
    found = []
    if contrast != "bank":
        found.append(
            f'alignment.contrast = "{contrast}": the loss of an image depends on the others of its '
            'batch; use "bank"'
        )
    mixing = [
        name
        for name, module in model.tower.named_modules()
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]
    if mixing:
        found.append(
            f"model.image: BatchNorm takes the statistics of the batch in {listed(mixing)}; "
            "use weights with stored statistics, or a tower without BatchNorm, for example tiny"
        )
    obstacle = _obstacle(model, hidden)
    if obstacle:
        found.append(
            f"model.train: no gradient of single images for {obstacle}; use adapter, or lora, or "
            "last-N with fewer blocks"
        )
    return found


def couples_images(model: AlignmentModel, loss: Loss) -> bool:
    """Whether the loss of an image depends on another image of its batch.

    Tried on two equal made-up images: there no softmax over them is saturated.
    """
    batch = _two_equal(model)
    losses = loss(model, batch)
    found = torch.autograd.grad(losses[0], [batch.images, batch.regions], allow_unused=True)
    return any(part is not None and bool(part[1].any()) for part in found)


def reached(model: AlignmentModel, loss: Loss) -> list[str]:
    """Names of `model.shared()` that the loss depends on: the tower's, and the bank's it uses."""
    shared = model.shared()
    losses = loss(model, _two_equal(model))
    found = torch.autograd.grad(losses.sum(), list(shared.values()), allow_unused=True)
    return [
        name
        for name, part in zip(shared, found, strict=True)
        if part is not None or not name.startswith("bank.")
    ]


def _two_equal(model: AlignmentModel) -> Batch:
    """Two equal images with one region each, of class 0 and showing every finding."""
    centre = model.centre
    rows = torch.full((2, centre.shape[1]), centre.shape[1] ** -0.5).to(centre)
    return Batch(
        rows.clone().requires_grad_(),
        rows.unsqueeze(1).clone().requires_grad_(),
        torch.ones(2, 1, dtype=torch.bool, device=centre.device),
        torch.zeros(2, dtype=torch.long, device=centre.device),
        torch.ones(2, len(model.findings), dtype=torch.bool, device=centre.device),
    )


def _obstacle(model: AlignmentModel, hidden: Tensor | None) -> str:
    """The layer at which gradients of single images fail, and why; empty if they do not."""
    tower, device = model.tower, model.centre.device
    grid = tower.tower.grid
    region_weights = torch.zeros(1, 1, grid, grid, device=device)
    nothing = torch.zeros(1, dtype=torch.long)
    try:
        if hidden is None:
            side = tower.tower.preprocess.size
            pixels = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device)
            hidden = tower.frozen(pixels, region_weights)
        one = Examples(
            hidden=hidden.unsqueeze(1),
            region_weights=region_weights.unsqueeze(1),
            valid=torch.zeros(1, 1, 1, dtype=torch.bool),
            labels=nothing,
            positives=torch.zeros(1, len(model.findings), dtype=torch.bool),
            groups=("",),
        )
        per_image_gradients(model, one, lambda _, b: b.images.sum(dim=1), nothing, nothing)
    except (RuntimeError, NotImplementedError) as error:
        return f"{_layer(model, error)} of {tower.tower.name} ({str(error).splitlines()[0]})"
    return ""


def _layer(model: AlignmentModel, error: Exception) -> str:
    """Name of the innermost layer that was running when the error arose."""
    names = {id(module): name for name, module in model.tower.tower.named_modules() if name}
    running = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next(
        (names[id(module)] for module in reversed(running) if id(module) in names), "a part"
    )
