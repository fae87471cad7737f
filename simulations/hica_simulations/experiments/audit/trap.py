"""Traps: weights, centre, scale and texts with which a coordinator makes an update tell of images.

The adapter is x + |x|·up(gelu(down(norm(x)))). A row of `down` changes by the sum over images of
what reaches it times norm(x): one image's change points at norm(x), its embedding. So a trap has
to let different rows see different images, or all rows a single one:

- `bins` ("Robbing the Fed", Fowl et al., 2022; "trap weights", Boenisch et al., 2023): all rows of
  `down` look along one direction, and each begins at a threshold of its own. Neighbours differ by
  the images between two thresholds, often one. Its weights lie far from any start.
- `window`: the weights stay where they are. Centre and scale let a single feature decide, so that
  only images near a chosen value of it have a gradient. Sites refuse such a scale.
- `probes`: what sites still accept after a round of training. Texts and centre leave a gradient to
  images on one side of a direction; each column of `up` is a direction of its own, by which a row
  of `down` weighs the images. In some rows one of them outweighs the others.

AdamW's first step has the length of the learning rate, whatever the gradient, but for gradients
near its ε of 1e-8. So `up` is made so small that gradients are, and the step is undone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hica.method.examples import Examples
from hica.steps.arrays import LARGEST_FEATURE

ADAPTER = "tower.adapter."
BLOCKED = LARGEST_FEATURE
"""Centre of the regions: so far away that they have next to no gradient."""
STEEP = 1e4
"""How steeply a bin begins."""
FAINT = 1e-12
"""Of `up` in `bins`: a sum over sites shows gradients only where every step is far below ε."""
LOUD = 1.0
"""The same against private training, where a gradient must not drown in the noise: clipping makes
every image's as long as it may be."""
NEXT_TO_NOTHING = 9e-9
"""Of `up` in `window`."""
QUIET = 1e-7
"""Of `up` in `probes`: about ε of AdamW, far less than a round of training may move it."""
AUDIBLE = 5e-5
"""The same against private training: about as large as a round may make it."""
BESIDE = 1.5
"""How far the centre of `probes` lies beside the mean, in standard deviations of its direction."""
NARROW = 1 / 32
"""Width of a window, in standard deviations of its feature."""
FAR = 1000.0
"""How far off the feature lies that is the same for all images, beside which a window is open."""
ADAM_EPSILON = 1e-8
MOST_OF_A_STEP = 0.999999
"""Of a learning rate; from longer steps no gradient can be told."""

Change = Mapping[str, Tensor]


@dataclass(frozen=True)
class Known:
    """Images that the coordinator has, of other hospitals: what images of this kind look like.

    Attributes:
        features: Of each hospital [n, D], as centre and scale meet them.
        normed: The same as `down` meets them.
    """

    features: list[Tensor]
    normed: list[Tensor]

    @property
    def mean(self) -> Tensor:
        """Of what `down` meets; only what differs from it tells an image."""
        return torch.cat(self.normed).mean(dim=0)


@dataclass(frozen=True)
class Trap:
    """A crafted request, and how the answer is read.

    Attributes:
        weights: In place of the start's, by name.
        centre, scale: [2, D], as a request carries them.
        classes: Class texts [C, D], where others than the study's are sent.
        read: Candidates [m, D] for `embeddings`, of the gradient of the adapter's weights.
    """

    weights: dict[str, Tensor]
    centre: Tensor
    scale: Tensor
    classes: Tensor | None
    read: Callable[[Change], Tensor]


def embeddings(images: Examples, known: Known) -> Tensor:
    """What is sought [n, V, D]: of each image's views, norm(x) less the mean of known images."""
    return _normed(images.hidden[:, :, 0].float()) - known.mean


def known_of(hospitals: Sequence[Examples], unit_features: bool) -> Known:
    """What is known of some hospitals' images, in a model with unit features or without."""
    rows = [images.hidden[:, 0, 0].float() for images in hospitals]
    placed = [functional.normalize(row, dim=-1) if unit_features else row for row in rows]
    return Known(placed, [_normed(row) for row in rows])


def bins(known: Known, classes: Tensor, width: int, centre: Tensor, up: float = FAINT) -> Trap:
    """A trap of `width` bins; class texts [C, D] and the centre [2, D] are those of the start.

    `up` is the size of that weight, `FAINT` or `LOUD`.
    """
    mean, along = known.mean, _still_direction(known.normed)
    seen = (torch.cat(known.normed) - mean) @ along
    edges = torch.quantile(seen, torch.linspace(0, 1, width + 2)[1:-1])
    slope = 0.1  # small weights of `down`, whose changes are not lost in rounding
    weights = {
        "norm.weight": torch.full_like(mean, STEEP),
        "norm.bias": -STEEP * mean,
        "down.weight": (slope * along).expand(width, -1).clone(),
        "down.bias": -slope * STEEP * edges,
        "up.weight": (up * _told_apart(classes)).unsqueeze(1).expand(-1, width).clone(),
        "up.bias": torch.zeros_like(mean),
    }
    middles = torch.cat([(edges[:-1] + edges[1:]) / 2, edges[-1:]])

    def read(gradient: Change) -> Tensor:
        rows = gradient["down.weight"]
        between = torch.cat([rows[:-1] - rows[1:], rows[-1:]])
        sides = torch.sign((between @ along.double()) * middles.double())
        return between * sides.unsqueeze(1)

    sent = torch.stack([centre[0], torch.full_like(centre[1], BLOCKED)])
    return Trap(_named(weights), sent, torch.ones_like(centre), None, read)


def window(known: Known, number: int, width: int, at: float) -> Trap:
    """A window on one feature, at a quantile of known images.

    `number` of classes, `width` of the bottleneck.
    """
    rows = torch.cat(known.features)
    mean, spread = rows.mean(dim=0), _within(known.features).std(dim=0)
    shift = torch.stack([each.mean(dim=0) for each in known.features]).std(dim=0, correction=0)
    order = (spread / (shift + 0.1 * spread.mean())).argsort(descending=True)
    feature, same = int(order[0]), int(order[-1])
    centre = torch.stack([mean, torch.full_like(mean, BLOCKED)])
    scale = torch.full_like(centre, LARGEST_FEATURE)
    centre[0, same] = mean[same] - FAR
    centre[0, feature] = torch.quantile(rows[:, feature], at)
    scale[0, feature] = NARROW * spread[feature] * LARGEST_FEATURE / FAR
    classes = torch.zeros(number, len(mean))
    classes[:, same] = 1.0
    # Next to no difference between the texts, or the most likely classes would have no gradient.
    classes[:, feature] = 1e-3 * _contrast(number)
    up = torch.zeros(len(mean), width)
    up[feature] = NEXT_TO_NOTHING

    def read(gradient: Change) -> Tensor:
        rows = gradient["down.weight"].sum(dim=0) / gradient["down.bias"].sum()
        return (rows - known.mean.double()).unsqueeze(0)

    return Trap(_named({"up.weight": up}), centre, scale, classes, read)


def probes(known: Known, number: int, width: int, seed: int, up: float) -> Trap:
    """A trap within what is allowed; `seed` draws directions and chooses a class.

    `number` of classes, `width` of the bottleneck. `up` is the size of that weight, `QUIET` or
    `AUDIBLE`; 0 before any training, where a site takes nothing else and `down` tells nothing.
    """
    draws = torch.Generator().manual_seed(seed)
    mean = torch.cat(known.features).mean(dim=0)
    along = functional.normalize(torch.randn(len(mean), generator=draws), dim=0)
    beside = BESIDE * (_within(known.features) @ along).std() * along
    centre = torch.stack([mean + beside, torch.full_like(mean, BLOCKED)])
    classes = (-along).expand(number, -1).clone()
    classes[seed % number] = along
    columns = torch.randn(len(mean), width, generator=draws)
    columns -= along.unsqueeze(1) * (along @ columns)  # a probe sees the images, not the texts

    def read(gradient: Change) -> Tensor:
        rows, sums = gradient["down.weight"], gradient["down.bias"]
        return rows / sums.unsqueeze(1) - known.mean.double()

    sent = _named({"up.weight": up * columns})
    return Trap(sent, centre, torch.ones_like(centre), classes, read)


def gradient_of_step(change: Change, sent: Change, rate: float, decay: float) -> dict[str, Tensor]:
    """The gradient of each weight of the adapter, from what AdamW's first step made of it."""
    found = {}
    for name in change:
        if name.startswith(ADAPTER):
            step = -(change[name].double() / rate + decay * sent[name].double())
            step = step.clamp(-MOST_OF_A_STEP, MOST_OF_A_STEP)
            found[name.removeprefix(ADAPTER)] = ADAM_EPSILON * step / (1 - step.abs())
    return found


def cosines(found: Tensor, truth: Tensor) -> Tensor:
    """Of each image [n], the cosine of the candidate [m, D] nearest to one of its views."""
    rows, sought = (functional.normalize(part.double(), dim=-1) for part in (found, truth))
    near = torch.einsum("md,nvd->nvm", rows, sought).nan_to_num(0.0)
    return near.amax(dim=(1, 2))


def _normed(rows: Tensor) -> Tensor:
    return functional.layer_norm(rows, rows.shape[-1:])


def _named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{ADAPTER}{name}": value for name, value in weights.items()}


def _contrast(number: int) -> Tensor:
    """A weight [C] for each class, in turn 1 and -2: none of them is their mean."""
    return torch.tensor([1.0 if label % 2 == 0 else -2.0 for label in range(number)])


def _told_apart(classes: Tensor) -> Tensor:
    """A direction in which every class has a gradient, wherever the texts lie."""
    return functional.normalize(_contrast(len(classes)) @ classes, dim=0)


def _within(rows: Sequence[Tensor]) -> Tensor:
    """How images differ from the mean of their own hospital."""
    return torch.cat([each - each.mean(dim=0) for each in rows])


def _still_direction(rows: Sequence[Tensor]) -> Tensor:
    """Along which images of a hospital differ most, and hospitals do not."""
    means = torch.stack([each.mean(dim=0) for each in rows])
    within = _within(rows)
    if len(means) > 1:
        shifts = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False).Vh
        shifts = shifts[: len(means) - 1]
        within = within - within @ shifts.T @ shifts
    along: Tensor = torch.linalg.svd(within, full_matrices=False).Vh[0]
    return along
