"""What privacy costs in training: DP-SGD over plain training, the same images in every step.

Both take a step of stage 2's objective with regions and a trained text bank; DP-SGD makes the
gradient of every image besides, clips it and adds noise. Its noise is seeded here; the operating
system's, which a hospital uses, is measured alone.
"""

from statistics import median

import torch

from hica.method.local_training import Schedule, alignment_loss, train
from hica.method.model import AlignmentModel
from hica.privacy.dp_sgd import PrivateSchedule, train_privately
from hica.privacy.noise import SecureNoise, SeededNoise
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt
from hica_simulations.experiments.benchmarks.regions import K, random_bank, random_examples
from hica_simulations.experiments.benchmarks.timing import Figure, alternate_clocked, ratio


def compare_dp_sgd(
    repeat: int, image: str = "ViT-B-16", way: str = "lora", batch_size: int = 8, steps: int = 1
) -> list[Figure]:
    """Step time of plain training and of DP-SGD, in a tower of drawn weights.

    What of it is trained is `way`, as in `model.train`; what is frozen is cached. A measurement
    takes `steps` steps of `batch_size` images; DP-SGD's holds its checks before the first as well.
    """
    tower = adapt(load_image_tower(image), way)
    model = AlignmentModel(tower, random_bank(tower.tower.dim), True)
    examples = random_examples(tower, batch_size, K)
    epochs = Schedule(steps, batch_size, 1e-4, 1e-4)  # of one step each
    schedule = PrivateSchedule(
        steps=steps,
        sampling_rate=1.0,
        noise_multiplier=1.0,
        max_norm=1.0,
        views=1,
        micro_batch=batch_size,
        learning_rate=1e-4,
        expected_units=batch_size,
        bank_learning_rate=1e-4,
    )
    loss = alignment_loss(0.1, 0.5, 0.5, 0.2, "all", "bank")

    def plain() -> None:
        train(model, examples, loss, epochs, torch.Generator().manual_seed(0))

    def private() -> None:
        train_privately(model, examples, loss, schedule, examples.groups, SeededNoise(0))

    def noise() -> None:
        for parameter in model.shared().values():
            SecureNoise().normal(tuple(parameter.shape))

    seconds = alternate_clocked({"plain": plain, "private": private, "noise": noise}, repeat)
    name = f"{image.removeprefix('timm/')}, {way}"
    return [
        Figure(f"{name}: step, plain", 1000 * median(seconds["plain"]) / steps, "ms"),
        Figure(f"{name}: step, DP-SGD", 1000 * median(seconds["private"]) / steps, "ms"),
        Figure(f"{name}: secure noise of a step", 1000 * median(seconds["noise"]), "ms"),
        Figure(f"{name}: DP-SGD / plain", ratio(seconds["private"], seconds["plain"]), "×"),
    ]
