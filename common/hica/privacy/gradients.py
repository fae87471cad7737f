"""Gradients of single images and of single patients: what DP-SGD clips.

Every image runs through the tower as a batch of one, with its own copy of the trained weights
(views of the same memory), vectorised by `torch.func.vmap`; the copies' gradients are those of the
single images. This is exact whatever the tower does with its weights: raw parameters such as class
tokens, layers that are called twice, patches folded into the batch. Opacus' hooks, which see
layers' inputs and outputs only, were wrong without a word for 151 of the 154 weights of a ViT-B-32
trained whole, refuse towers with buffers, and were no faster where they are right (CPU time of a
gradient, hooks and this: ViT-B-16 with LoRA, 4 images, 3.5 and 3.4 s; an adapter, 32 images, 7 and
5 ms; the tiny tower trained whole, 16 images, 80 and 75 ms).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from hica.method.examples import Examples
from hica.method.local_training import Batch, Loss
from hica.method.model import AlignmentModel


class Draw(NamedTuple):
    """The images of one step, in rows: one view of one image each, those of a unit together."""

    images: Tensor
    """[R] index of the image."""
    views: Tensor
    """[R] index of the view."""
    units: Tensor
    """[R] number of the unit among those drawn, ascending from 0."""
    shares: Tensor
    """[R] weight of the row in its unit's mean; those of a unit add up to 1."""


def per_image_gradients(
    model: AlignmentModel, examples: Examples, loss: Loss, images: Tensor, views: Tensor
) -> dict[str, Tensor]:
    """Gradient of the loss of each image, in the model's own precision.

    Args:
        model: On its device and in the mode it is trained in; not changed.
        examples: On any device.
        loss: Per-image loss in which no image sees another (`hica.privacy.refusals`).
        images: [R] index of each image, R > 0.
        views: [R] index of the view shown of it.

    Returns:
        Gradients [R, ...] by the names of `model.shared()`; a text bank that the loss does not use
        is left out.
    """
    device, shared = model.centre.device, model.shared()
    bank = {name: value for name, value in shared.items() if name.startswith("bank.")}
    copies = {
        name: value.detach().expand(len(images), *value.shape).requires_grad_()
        for name, value in shared.items()
        if name not in bank
    }

    def embed(
        own: dict[str, Tensor], hidden: Tensor, region_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        image, regions = functional_call(model, own, (hidden[None], region_weights[None]))
        return image[0], regions[0]

    # Flash attention has no vectorised rule (it would loop over the images, as fast as this) and no
    # gradient for trained position biases.
    with sdpa_kernel(SDPBackend.MATH):
        shown = examples.shown(images, views, model.centre)
        embedded = vmap(embed)(copies, *shown)  # (R, D), (R, K, D)
    # In the bank's gradient below rows are told apart by factors of 0, which NaN would survive.
    rows = [part.detach().nan_to_num(0.0, 0.0, 0.0).requires_grad_() for part in embedded]
    batch = Batch(
        rows[0],
        rows[1],
        examples.valid[images, views].to(device),
        examples.labels[images].to(device),
        examples.positives[images].to(device),
    )
    losses = loss(model, batch)
    toward_rows = torch.autograd.grad(
        losses.sum(), rows, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    gradients = _of_bank(losses, bank)
    toward_copies = torch.autograd.grad(
        embedded, list(copies.values()), toward_rows, allow_unused=True, materialize_grads=True
    )
    return gradients | dict(zip(copies, toward_copies, strict=True))


def _of_bank(losses: Tensor, bank: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Jacobian [R, ...] of the losses [R] in each part of the bank that they depend on."""
    if not (bank and losses.requires_grad):
        return {}
    one_each = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
    found = torch.autograd.grad(
        losses, list(bank.values()), one_each, is_grads_batched=True, allow_unused=True
    )
    return {name: part for name, part in zip(bank, found, strict=True) if part is not None}


def per_unit_gradients(
    model: AlignmentModel, examples: Examples, loss: Loss, draw: Draw, micro_batch: int
) -> Iterator[dict[str, Tensor]]:
    """Mean gradients [u, P] of the next u ≥ 0 units of the draw, flattened, by name.

    Values that are not finite count as zero: they would pass every clipping, spoil the sums of
    other units and so tell of their own. Names are those of `model.shared()`; model and loss are as
    for `per_image_gradients`. `micro_batch` rows have their gradients held at a time. A unit may
    have more: its rows are added up over micro-batches before it is handed out.
    """
    unfinished: dict[str, Tensor] = {}
    for start in range(0, len(draw.units), micro_batch):
        rows = slice(start, start + micro_batch)
        units = draw.units[rows]
        gradients = per_image_gradients(model, examples, loss, draw.images[rows], draw.views[rows])
        place = units - units[0]
        mean = torch.zeros(int(place[-1]) + 1, len(units), dtype=torch.float64)
        mean[place, torch.arange(len(units))] = draw.shares[rows]
        sums = {}
        for name in list(gradients):
            flat = gradients.pop(name).flatten(1).nan_to_num_(0.0, 0.0, 0.0)  # (R, P)
            sums[name] = mean.to(flat.device, flat.dtype) @ flat  # (u, P)
        for name, earlier in unfinished.items():
            sums[name][0] += earlier
        goes_on = bool((draw.units[start + micro_batch :] == units[-1]).any())
        unfinished = {name: part[-1] for name, part in sums.items()} if goes_on else {}
        yield {name: part[:-1] if goes_on else part for name, part in sums.items()}
