"""What caching saves: an epoch of the adapter from cached features, or with the tower run anew.

The cached way reads every feature from the disk in every epoch (a site reads them once); the other
has its pixels in memory already. Both favour recomputing.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from hica.images.cache import TensorCache, key_of
from hica.method.model import AlignmentModel
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt
from hica_simulations.experiments.benchmarks.regions import K, epoch, random_bank, random_examples
from hica_simulations.experiments.benchmarks.timing import Figure, alternate_clocked, ratio

BATCH_SIZE = 16


def compare_features(
    repeat: int, image: str = "timm/mobilenetv2_100", images: int = 32
) -> list[Figure]:
    """Seconds of an epoch of some images either way, with a frozen tower of drawn weights."""
    tower = adapt(load_image_tower(image), "adapter")
    model = AlignmentModel(tower, random_bank(tower.tower.dim), True)
    examples = random_examples(tower, images, K)
    size = tower.tower.preprocess.size
    pixels = torch.zeros(images, 3, size, size, dtype=torch.uint8)

    def train_on(hidden: Tensor) -> None:
        epoch(model, replace(examples, hidden=hidden.unsqueeze(1)), BATCH_SIZE, 0.5)()

    def recomputed() -> None:
        parts = (pixels, examples.region_weights[:, 0])
        batches = zip(*(torch.split(part, BATCH_SIZE) for part in parts), strict=True)
        train_on(torch.cat([tower.frozen(images, regions) for images, regions in batches]))

    with tempfile.TemporaryDirectory() as folder:
        cache = TensorCache(Path(folder))
        keys = [key_of("features", number) for number in range(images)]
        for key, hidden in zip(keys, examples.hidden, strict=True):
            cache.put(key, {"hidden": hidden.half()})

        def cached() -> None:
            train_on(torch.cat([(cache.get(key) or {})["hidden"] for key in keys]))

        seconds = alternate_clocked({"cached": cached, "recomputed": recomputed}, repeat)
    name = image.removeprefix("timm/")
    saved = ratio(seconds["recomputed"], seconds["cached"])
    return [
        *(
            Figure(f"{name}: epoch of the adapter, {way}", 1000 * median(taken), "ms")
            for way, taken in seconds.items()
        ),
        Figure(f"{name}: recomputed / cached", saved, "×"),
    ]
