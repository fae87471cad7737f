"""Efficiency: what each way of training costs, beside what it gives.

Seconds and bytes are those of the federation. How fast a model answers, how many weights it trains
and how much memory that takes is measured in a process of its own, whose memory holds nothing else;
pictures are drawn at random, as neither depends on what they show. Run it with `--jobs 1`: cells
that share the machine slow each other.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from hica.device import select_device
from hica.method.examples import Examples
from hica.method.local_training import Schedule, embed_all, train
from hica.method.model import AlignmentModel
from hica.steps.alignment import loss_of
from hica.study import Study
from hica.text.bank import TextBank
from hica.towers.from_study import adapted_tower
from hica_simulations.experiments.tables.comparison import Comparison, Figure, Variant
from hica_simulations.place import Place
from hica_simulations.scenario import Scenario

LAST = "last-2"
WAYS = ("adapter", "last-1", LAST, "lora", "full")
TRAINING = ("pretraining", "alignment")
"""Stages whose exchanges train."""
IMAGES = 32
"""Drawn at random, and classified together."""
REPEATS = 3
MEGABYTE = 1e-6

_MEASURED: dict[str, dict[str, float | None]] = {}
"""By model and batch: a way of training is measured once."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """Every way of training; fewer layers where the trained blocks would not reach them all."""
    own = scenario.study.model.layers
    found = {}
    for way in WAYS:
        kind, _, blocks = way.partition("-")
        layers = min(own, int(blocks) + 1) if kind == "last" else own
        found[way] = Variant({"model": {"train": way, "layers": layers}})
    return found


def measured(
    scenario: Scenario, place: Place, result: Mapping[str, Any]
) -> dict[str, float | None]:
    """Further columns of the row of a finished federation."""
    steps = training_steps(result)
    answers = sum(len(entry["participants"]) for entry in steps)
    study = scenario.study
    key = f"{study.model.model_dump_json()} {study.alignment.batch_size} {place.device}"
    if key not in _MEASURED:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            _MEASURED[key] = pool.submit(costs, study, place.data, place.device).result()
    return {
        "training_seconds": training_seconds(result),
        "site_bytes_up": sum(entry["bytes_up"] for entry in steps) / answers,
        "site_bytes_down": sum(entry["bytes_down"] for entry in steps) / answers,
        **_MEASURED[key],
    }


def training_steps(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rounds of `result.json` in which sites trained."""
    return [entry for entry in result["rounds"] if entry["stage"] in TRAINING]


def training_seconds(result: Mapping[str, Any]) -> float:
    """Wall clock of the rounds in which sites trained."""
    return float(sum(entry["seconds"] for entry in training_steps(result)))


def costs(study: Study, weights: Path, device_name: str) -> dict[str, float | None]:
    """Trained weights, classified images a second and peak memory of this process.

    The weights of the tower lie below the folder `weights`; a device is `auto`, `cpu` or `cuda:N`.
    """
    torch.set_num_threads(1)
    device = select_device(device_name)
    adapted = adapted_tower(study, weights, device)
    generator = torch.Generator().manual_seed(study.study.seed)
    dim, side = adapted.tower.dim, adapted.tower.preprocess.size
    counts = (len(study.classes), len(study.finding_names))
    rows = [torch.randn(count, dim, generator=generator) for count in counts]
    bank = TextBank.assemble(study.class_texts, *rows).to(device)
    model = AlignmentModel(adapted, bank, study.alignment.train_text_bank).to(device)
    views = 2 if study.alignment.flip_at_test else 1
    pixels = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=generator)
    grid = torch.ones(IMAGES, study.regions.count, adapted.tower.grid, adapted.tower.grid)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(views):
            examples = _examples(model, bank, pixels, grid)
            embed_all(model, examples)  # its result on the CPU: a GPU is waited for
        times.append(time.perf_counter() - started)
    schedule = Schedule(2, study.alignment.batch_size, study.alignment.learning_rate)
    train(model, examples, loss_of(study), schedule, generator)
    return {
        "trained_weights": sum(weight.numel() for weight in model.shared().values()),
        "images_a_second": IMAGES / min(times),
        "peak_bytes": _peak_memory(device),
    }


@torch.no_grad()
def _examples(
    model: AlignmentModel, bank: TextBank, pixels: torch.Tensor, grid: torch.Tensor
) -> Examples:
    """Images as a site keeps them: what is frozen has been computed."""
    device = model.centre.device
    labels = torch.arange(len(pixels)) % len(bank.class_names)
    hidden = model.tower.eval().frozen(pixels.to(device), grid.to(device))
    return Examples(
        hidden=hidden.unsqueeze(1).cpu(),
        region_weights=grid.unsqueeze(1),
        valid=torch.ones(grid.shape[:2], dtype=torch.bool).unsqueeze(1),
        labels=labels,
        positives=bank.positives(labels, [()] * len(labels)).cpu(),
        groups=tuple(map(str, range(len(labels)))),
    )


def _peak_memory(device: torch.device) -> float | None:
    """Peak memory in bytes, of the GPU or of this process; None where the system does not tell.

    Not `ru_maxrss`: Linux hands that of the process which started this one down to it.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024.0 * int(kilobytes[0]) if kilobytes else None


TABLE = Comparison(
    title="What ways of training cost",
    reference=LAST,
    variants=variants,
    compared=("auroc",),
    metrics={"auroc": "AUROC"},
    figures={
        "training_seconds": Figure("training, s"),
        "images_a_second": Figure("images a second", digits=1),
        "peak_bytes": Figure("peak memory, MB", MEGABYTE),
        "site_bytes_up": Figure("up a site and round, MB", MEGABYTE, 2),
        "site_bytes_down": Figure("down, MB", MEGABYTE, 2),
        "trained_weights": Figure("trained weights, millions", MEGABYTE, 3),
    },
    measure=measured,
    remark=(
        "Training is the wall clock of all rounds of both stages, the sites side by side on this "
        f"machine's cores. Images are classified {IMAGES} at a time by one core or the GPU, mirror "
        "image included where the study has it, the fastest of three tries, from pixels in memory. "
        "Peak memory is that of a fresh process with its libraries, which classifies and takes "
        "training steps; on a GPU, what is allocated there. Trained weights are those that travel, "
        "the text bank's among them."
    ),
)
cells, write = TABLE.cells, TABLE.write
