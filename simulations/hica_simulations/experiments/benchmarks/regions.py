"""What regions cost in training: pooled from the image's patches, or cropped and encoded apart.

Three ways to take a training step of stage 2, forward and backward through the whole tower: the
image alone, the image with K regions by mask pooling (ours), the image and K crops.
"""

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from hica.method.examples import Examples
from hica.method.local_training import Schedule, alignment_loss, train
from hica.method.model import AlignmentModel
from hica.regions import build, extract, to_grid
from hica.text.bank import TextBank
from hica.towers import load_image_tower
from hica.towers.adaptation import AdaptedTower, adapt
from hica_simulations.experiments.benchmarks.timing import Figure, alternate_clocked, ratio

K = 4
TEXTS = [(name, [name], [f"sign of {name}"], False) for name in ("normal", "benign", "malignant")]


class CropModel(AlignmentModel):
    """Encodes every region as an image of its own, as region-level CLIP variants do."""

    def forward(self, hidden: Tensor, region_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, S, S], weights of no region → images [B, D], quadrants [B, 4, D]."""
        pixels = torch.cat([hidden, quadrants(hidden).flatten(0, 1)])
        none = region_weights.new_zeros((len(pixels), *region_weights.shape[1:]))
        whole, _ = super().forward(pixels, none)
        return whole[: len(hidden)], whole[len(hidden) :].reshape(len(hidden), K, -1)


def quadrants(pixels: Tensor) -> Tensor:
    """The four quarters of uint8 images [B, 3, S, S], each of full size: [B, 4, 3, S, S]."""
    size = pixels.shape[-1]
    half = size // 2
    rows = [torch.split(row, half, dim=3) for row in torch.split(pixels, half, dim=2)]
    large = [functional.interpolate(part.float(), size) for row in rows for part in row]
    return torch.stack(large, dim=1).to(torch.uint8)


def random_examples(tower: AdaptedTower, count: int, regions: int) -> Examples:
    """Labelled noise with one view and `regions` equal cells; hidden as the tower caches it."""
    size, grid = tower.tower.preprocess.size, tower.tower.grid
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    cells = extract(build("grid"), pixels[0], None, regions) if regions else pixels[0, :0].bool()
    region_weights, valid = to_grid(cells, grid, regions)
    region_weights = region_weights.expand(count, 1, -1, -1, -1)
    valid = valid.expand(count, 1, -1)
    labels = torch.arange(count) % len(TEXTS)
    return Examples(
        hidden=tower.frozen(pixels, region_weights[:, 0]).unsqueeze(1),
        region_weights=region_weights,
        valid=valid,
        labels=labels,
        positives=labels.unsqueeze(1) == torch.arange(len(TEXTS)),
        groups=tuple(str(number) for number in range(count)),
    )


def random_bank(dim: int) -> TextBank:
    """Three classes of one finding each, in random directions."""
    generator = torch.Generator().manual_seed(1)
    texts = functional.normalize(torch.randn(2, len(TEXTS), dim, generator=generator), dim=-1)
    return TextBank.assemble(TEXTS, texts[0], texts[1])


def epoch(
    model: AlignmentModel, examples: Examples, batch_size: int, local_weight: float
) -> Callable[[], object]:
    """One pass of stage 2 over `examples`."""
    loss = alignment_loss(0.07, local_weight, 0.5, 0.2, "all", "bank")
    schedule = Schedule(1, batch_size, 1e-4, 1e-4)
    return lambda: train(model, examples, loss, schedule, torch.Generator().manual_seed(0))


def compare_regions(
    repeat: int, image: str = "timm/mobilenetv2_100", batch_size: int = 8, steps: int = 2
) -> list[Figure]:
    """Step time of the three ways, in a tower of drawn weights that is trained whole.

    A measurement takes `steps` steps of `batch_size` images each.
    """
    tower = adapt(load_image_tower(image), "full")
    bank = random_bank(tower.tower.dim)
    count = batch_size * steps
    alone, pooled = random_examples(tower, count, 0), random_examples(tower, count, K)
    model, crops = AlignmentModel(tower, bank, True), CropModel(tower, bank, True)
    # The local term takes part with crops too: its regions are all valid.
    cropped = Examples(**{**vars(alone), "valid": pooled.valid})
    ways = {
        "image only": epoch(model, alone, batch_size, 0.0),
        "mask pooling": epoch(model, pooled, batch_size, 0.5),
        "crops": epoch(crops, cropped, batch_size, 0.5),
    }
    seconds = alternate_clocked(ways, repeat)
    name = image.removeprefix("timm/")
    titles = ("image only", f"{K} regions by mask pooling", f"{K} crops")
    steps_taken = [
        Figure(f"{name}: step, {title}", 1000 * median(taken) / steps, "ms")
        for title, taken in zip(titles, seconds.values(), strict=True)
    ]

    def over(way: str, other: str, below: float | None = None) -> Figure:
        return Figure(f"{name}: {way} / {other}", ratio(seconds[way], seconds[other]), "×", below)

    return [
        *steps_taken,
        over("mask pooling", "image only", below=1.15),
        over("crops", "image only"),
        over("crops", "mask pooling"),
    ]
