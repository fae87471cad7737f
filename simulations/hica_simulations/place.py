"""Place: where a simulation finds and leaves its files, and what it computes with."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Engine = Literal["grid", "flower"]


@dataclass(frozen=True)
class Place:
    """Folders, device and engine of a simulation.

    Attributes:
        data: Folder of images, texts and weights.
        out: Run directory.
        cache: Decoded images and features, shared by all runs.
        device: `auto`, `cpu` or `cuda:N`.
        engine: `grid` (in this process) or `flower` (Flower's Ray engine).
        workers: Sites that compute at once, one thread each.
    """

    data: Path
    out: Path
    cache: Path
    device: str = "auto"
    engine: Engine = "grid"
    workers: int = os.cpu_count() or 1
